# %% [markdown]
# # 2 · Why three gates
#
# Chapter 1 had one gate, the update gate u. The short-term memory layer (**STM**) has three. Are they all needed? The
# honest way to find out is to take one away, to give the others the best values that there are, and to see what can
# no longer be done.
#
# **You will know**
#
# * what each gate is for: u **keeps**, i **decouples** writing from fading, o **hides**;
# * a task for each that fails without it, whatever the other two do;
# * why the input gate and the update gate are not the same thing.

# %%
from collections.abc import Callable
from itertools import product
from typing import TypeAlias

import matplotlib.pyplot as plt
import numpy as np

from stg_np.backend import Array
from stg_np.ops.activations import IDENTITY
from stg_np.stm import STMParams, stm_forward, update_forward

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## What do the three gates do?
# One memory cell, one step. A value $z_t$ arrives, the **candidate** (how it comes about is chapter 3's matter; here
# it is simply the input). Three gates, each between 0 and 1:
#
# $$v_t = i_t\, z_t \qquad m_t = m_{t-1} + u_t\,(v_t - m_{t-1}) \qquad y_t = o_t\, m_t$$
#
# * the **input gate** $i_t$: how much of the candidate comes in;
# * the **update gate** $u_t$: how far the memory moves towards what came in;
# * the **output gate** $o_t$: how much of the memory goes out, as the output $y_t$.


# %%
def cell(z: Array, i: Array, u: Array, o: Array) -> Array:
    """Outputs y (T, ...) of memories that start at 0, from candidates and gates of that shape."""
    m = np.zeros(np.broadcast_shapes(z.shape[1:], u.shape[1:]))
    outputs = []
    for z_t, i_t, u_t, o_t in zip(z, i, u, o):
        m = update_forward(u_t, i_t * z_t, m)
        outputs.append(o_t * m)
    return np.array(outputs)


# %% [markdown]
# ## Which tasks?
# The input is noise, one random number at each step, and two flags: `write` marks one step in ten, `ask` another one
# in ten. Three tasks, each of which is one sentence and one line of NumPy:
#
# * **keep**: always show the latest value that was marked `write`;
# * **fade**: every marked value leaves a trace that fades by a tenth at each step; the unmarked ones leave none;
# * **hide**: hold the running mean of *all* values (time scale ten), but show it only where `ask` is set, and 0
#   elsewhere.

# %%
rng = np.random.default_rng(0)
T = 300
z = rng.standard_normal(T)
event = rng.choice(3, T, p=[0.8, 0.1, 0.1])  # 0: nothing, 1: write, 2: ask
write, ask = (event == 1).astype(float), (event == 2).astype(float)


def recurrence(rule: Callable[[float, int], float]) -> Array:
    """The sequence r_t = rule(r_{t−1}, t) from 0."""
    values, r = [], 0.0
    for t in range(T):
        r = rule(r, t)
        values.append(r)
    return np.array(values)


targets = {
    "keep": recurrence(lambda r, t: z[t] if write[t] else r),
    "fade": recurrence(lambda r, t: 0.9 * r + 0.1 * write[t] * z[t]),
    "hide": ask * recurrence(lambda r, t: 0.9 * r + 0.1 * z[t]),
}
assert set(targets["keep"][20:]) <= set(z[write == 1])  # nothing but marked values
assert not targets["hide"][ask == 0].any()

# %% [markdown]
# ## Can the whole cell do them?
# A gate that looks at the flags has three values: for "nothing", for "write" and for "ask". Here are the right ones.
# A dash: any value will do.
#
# | task | i: nothing, write, ask | u: nothing, write, ask | o: nothing, write, ask |
# | --- | --- | --- | --- |
# | keep | – 1 – | 0 1 0 | 1 1 1 |
# | fade | 0 1 0 | 0.1 0.1 0.1 | 1 1 1 |
# | hide | 1 1 1 | 0.1 0.1 0.1 | 0 0 1 |
#
# Look at the columns: keep needs only u to move, fade only i, hide only o.

# %%
right = {
    "keep": ((1, 1, 1), (0, 1, 0), (1, 1, 1)),
    "fade": ((0, 1, 0), (0.1, 0.1, 0.1), (1, 1, 1)),
    "hide": ((1, 1, 1), (0.1, 0.1, 0.1), (0, 0, 1)),
}
for task, settings in right.items():
    i, u, o = (np.array(values, float)[event] for values in settings)
    assert np.allclose(cell(z, i, u, o), targets[task], rtol=0, atol=1e-12)

# %% [markdown]
# ## What can the cell do with one gate knocked out?
# *Knocked out* means: the gate is one number, the same at all steps. For i and o that number is 1, for u it may be
# any. The other two gates may take any values that they like, for "nothing", "write" and "ask" each. We try them all:
# every combination of the values 0, 0.03, 0.1 and 1, thousands of cells side by side. And we are generous: each
# cell's output may also be multiplied by the factor that suits it best. If y is the output and r the target, the best
# factor is $s = \sum y r / \sum y^2$ (set the derivative of $\sum (s y - r)^2$ with respect to s to 0). With it
# $\sum (s y - r)^2 = \sum r^2 - (\sum y r)^2 / \sum y^2$ remains, which is, as a part of $\sum r^2$,
#
# $$\text{error} = 1 - \frac{(\sum y r)^2}{\sum y^2 \, \sum r^2}.$$
#
# 0 is perfect; 1 is what an output of nothing but zeros would have.

# %%
LEVELS = (0.0, 0.03, 0.1, 1.0)
Choices: TypeAlias = list[tuple[float, ...]]
FREE: Choices = list(product(LEVELS, repeat=3))
CONSTANT: Choices = [(level, level, level) for level in LEVELS]
OPEN: Choices = [(1.0, 1.0, 1.0)]
VARIANTS: dict[str, tuple[Choices, Choices, Choices]] = {  # the choices of (i, u, o)
    "all three": (FREE, [*CONSTANT, (0.0, 1.0, 0.0)], [*OPEN, (0.0, 0.0, 1.0)]),
    "without i": (OPEN, FREE, FREE),
    "without u": (FREE, CONSTANT, FREE),
    "without o": (FREE, FREE, OPEN),
}


def least_error(task: str, choices: tuple[Choices, ...]) -> float:
    """The error of the best of all combinations of the gates' choices, each of which is a cell of its own."""
    combinations = np.array(list(product(*choices)))  # (cells, gate, event)
    i, u, o = (combinations[:, gate].T[event] for gate in range(3))  # (T, cells) each
    r = targets[task]
    m = dots = squares = np.zeros(len(combinations))
    for t in range(T):  # as in `cell`, but nothing is kept that is not needed
        m = update_forward(u[t], i[t] * z[t], m)
        y_t = o[t] * m
        dots, squares = dots + y_t * r[t], squares + y_t * y_t
    explained = dots**2 / np.maximum(squares, 1e-12) / (r @ r)
    return abs(float(1 - explained.max()))


errors = {(task, name): least_error(task, choices) for task in targets for name, choices in VARIANTS.items()}
print("least error  ", *(f"{name:>10}" for name in VARIANTS))
for task in targets:
    print(f"{task:13}", *(f"{errors[task, name]:10.2f}" for name in VARIANTS))

needed = {"keep": "without u", "fade": "without i", "hide": "without o"}
for task, name in errors:
    if name == needed[task]:
        assert errors[task, name] > 0.15  # a good part of the target is out of reach
    else:
        assert errors[task, name] < 1e-9  # the other two gates suffice

figure, axes = plt.subplots(figsize=(7.6, 3.0))
for number, name in enumerate(VARIANTS):
    heights = [errors[task, name] for task in targets]
    bars = axes.bar(
        np.arange(3) + 0.2 * number - 0.3, heights, 0.17, label=name, color=["0.5", "C0", "C1", "C2"][number]
    )
    axes.bar_label(bars, [f"{height:.2f}" for height in heights], fontsize=9, padding=2)
axes.set(xticks=range(3), xticklabels=list(targets), ylabel="least error", ylim=(0, 1), title="A gate knocked out")
axes.set_title("0: perfect · 1: no better than silence", loc="right", fontsize=9.5)
axes.grid(axis="x", visible=False)
axes.legend(loc="upper left", ncols=4)
figure.savefig("02_knocked_out.svg")

# %% [markdown]
# Each gate is needed for a task of its own, and for that task no setting of the other two that we tried helps. Why is
# that so?
#
# * **Without u** the memory leaks at one speed always. To *keep*, the speed must be 0, and then nothing is ever
#   written.
# * **Without i** whatever makes room in the memory also fills it. To *fade* the memory must move towards 0 while
#   values arrive that are not to be let in.
# * **Without o** what is known is shown. To *hide* without forgetting, knowing and showing must be two things.
#
# ## "The input gate and the update gate are the same"
# Both stand before the incoming value, $u_t\, i_t\, z_t$, so they are often taken for one. But u stands before the
# old memory too. Open and close each of them, with the memory at 5 and the candidate at 3:

# %%
before, candidate = 5.0, 3.0
print("         u = 0         u = 1")
for i_value in (0.0, 1.0):
    kept, changed = (before + u_value * (i_value * candidate - before) for u_value in (0.0, 1.0))
    print(f"i = {i_value:.0f}    {kept} kept      {changed} {'erased' if changed == 0 else 'overwritten'}")
    assert kept == before  # u = 0 keeps, whatever i says
    assert changed == i_value * candidate  # u = 1 does not keep, whatever i says; i says what takes its place

# %% [markdown]
# A closed update gate **keeps**. A closed input gate under an open update gate **erases**. No value of i keeps
# anything, and with i = 1 no value of u erases anything. The output gate touches neither: it works on a copy.
#
# ## Why does u say both how much to keep and how much to add?
# One could have two gates: f for what is kept, and another for what is added, $m_t = f_t\, m_{t-1} + i_t\, z_t$. The
# LSTM does so. Ours is $m_t = (1 - u_t)\, m_{t-1} + u_t\, v_t$: the new memory lies *between* the old one and what
# comes in, since the two factors sum to 1 (a **convex combination**). If no candidate is larger than 1, no memory
# ever is. The other rule has no such bound; in exchange it can count.

# %%
total, bounded, one = 0.0, np.zeros(1), np.ones(1)
for _step in range(100):
    total = 1.0 * total + 1.0 * 1.0  # f = 1, i = 1, z = 1
    bounded = update_forward(0.3 * one, one, bounded)
print(f"after 100 steps of z = 1: two gates {total:.0f}, one gate {bounded[0]:.0f}")
assert total == 100
assert bounded[0] <= 1

random_gates = rng.uniform(0, 1, (2, 200, 500))
m = np.zeros(500)
for u_t, v_t in zip(*random_gates):
    m = update_forward(u_t, v_t * rng.choice([-1, 1], 500), m)
    assert abs(m).max() <= 1

# %% [markdown]
# ## Is that what the package computes?
# So far the gates were given numbers. In the layer each is σ of a weighted sum of the inputs, plus a bias. Our input
# has three **features**: the value, and the two flags. To open a gate with a flag and shut it otherwise, take a
# weight of 40 and a bias of −20: σ(20) and σ(−20) are 1 and 0 to eight digits. For u = 0.1 take the bias −log(10 −
# 1), from chapter 1. The parameters are one matrix W with a row for each feature and a column for each of i, u, o and
# z, and one vector b.

# %%
x = np.stack([z, write, ask], axis=-1)[None]  # one example, T steps, three features
SHUT, TENTH = -20.0, -np.log(9)
layers = {  # rows: value, write, ask; columns: i, u, o, z
    "keep": STMParams(np.array([[0, 0, 0, 1], [0, 40, 0, 0], [0, 0, 0, 0.0]]), np.array([-SHUT, SHUT, -SHUT, 0])),
    "fade": STMParams(np.array([[0, 0, 0, 1], [40, 0, 0, 0], [0, 0, 0, 0.0]]), np.array([SHUT, TENTH, -SHUT, 0])),
    "hide": STMParams(np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 40, 0.0]]), np.array([-SHUT, TENTH, SHUT, 0])),
}
for task, params in layers.items():
    y, _ = stm_forward(x, np.zeros((1, 1)), params, phi_z=IDENTITY)[0]  # z is the weighted sum itself
    assert np.allclose(y[0, :, 0], targets[task], rtol=0, atol=1e-6)

shown = np.arange(80)
outputs = {}
for task, params in layers.items():
    y, _ = stm_forward(x, np.zeros((1, 1)), params, phi_z=IDENTITY)[0]
    outputs[task] = y[0, shown, 0]
mean = recurrence(lambda r, t: 0.9 * r + 0.1 * z[t])[shown]
marked, asked = shown[write[shown] == 1], shown[ask[shown] == 1]

figure, (keep, fade, hide) = plt.subplots(3, 1, figsize=(7.6, 5.0), sharex=True)
keep.plot(shown, z[shown], ".", color="0.5", markersize=4, label="value")
keep.plot(marked, z[marked], "o", color="C1", label="value marked “write”")
fade.plot(marked, 0.1 * z[marked], "o", color="C1", label="a tenth of the marked value")
hide.plot(shown, mean, ":", color="0.5", label="running mean, in the memory")
hide.plot(asked, mean[asked], "o", color="C4", label="“ask”")
for axes, (task, y_task) in zip((keep, fade, hide), outputs.items()):
    axes.plot(shown, y_task, color="C0", label="output y")
    axes.set_ylabel(task)
    axes.margins(y=0.35)
    axes.legend(loc="upper left", ncols=3)
hide.set_xlabel("step t")
figure.savefig("02_tasks.svg")

# %% [markdown]
# ## In the field's words
# Keeping the latest marked value is a **sample-and-hold** (electronics), and close to the **latching** problem of
# Bengio, Simard & Frasconi (IEEE Transactions on Neural Networks 1994), who showed why networks without gates learn
# it badly. Taking a part away to see what it was worth is an **ablation**. The LSTM's gates (Hochreiter & Schmidhuber
# 1997; Gers et al. 2000) are called input, **forget** and output gate; its forget gate is large where it *keeps*, our
# update gate is large where it *changes*. The GRU (Cho et al., arXiv:1406.1078) ties keeping and adding as we do, and
# has no input and no output gate, but a **reset** gate; chapter 3 lays the three side by side. Which gates an LSTM
# can do without was tried by Greff et al. ("LSTM: A Search Space Odyssey", arXiv:1503.04069): the forget gate and the
# output nonlinearity mattered most.
#
# A warning: that a gate *can* be needed does not say that it is needed for your data. On pictures, the
# [ablations](../../benchmarks/results/ablation.md) of this package measure what each gate is worth there.
#
# ## Summary
# * u decides **how far** the memory moves, and so alone can keep.
# * i decides **towards what**: the candidate, or 0. It lets a memory fade while nothing is written.
# * o decides **what is shown**. The memory does not notice it.
# * 1 − u and u sum to 1, so a memory stays between what it was and what comes in.
#
# ## Exercises
# **1. Erase without i.** Let the flags be seen by the candidate as well, z = tanh(x + k f), with i = 1 always and u =
# 1 where f = 1. What does one cell hold after an erase? Take a second cell, and build an output that is exactly 0
# then.
# <details><summary>Hint</summary>tanh of a large number is 1, whatever x is. What would a cell hold that sees the flag
# only?</details>
#
# **2. Count.** Can one STM cell count flags without bound? And up to 100, if its output may be multiplied by a
# factor?
# <details><summary>Hint</summary>The memory never leaves the range of what comes in. But a small u and a large factor
# behind the output ... how large may u be, if the 100th flag must still count as much as the first?</details>
#
# **3. The first one wins.** Keep the *first* marked value (between ½ and 1) and ignore all later ones. Why can no
# gates that see only the input do that? How could a gate that also sees the memory?
# <details><summary>Hint</summary>With the same inputs the gates are the same, whatever is in the memory. Then try
# a_u = 20 f − 10 − 40 m.</details>
#
# Solutions: [solutions/02_why_three_gates.py](../solutions/02_why_three_gates.py). Next: [the STM
# step](03_the_stm_step.ipynb)
