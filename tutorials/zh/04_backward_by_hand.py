# %% [markdown]
# # 4 · 手写反向传播
#
# 这一层把输出 y 送往后面，网络的其余部分回以 dy：y 的每个数变一点，损失会怎样变。那么输入、初始记忆、每个参数变一点，损失又会怎样变？多数程序库替你回答；在这里由你自己一行一行地做，每一行都与程序包的结果核对。
#
# **你将学到**
#
# * 三条规则，任何东西的反向都够用；
# * STM 层反向的每一行，以及它为什么从最后一步走向第一步；
# * 循环形式中，R 多带来了什么。
#
# 请备好纸笔。每个答案之前有一处**填空**，填好了再打开答案。同样的填空也在 [exercises/04_the_blanks.py](../../exercises/04_the_blanks.py) 里，它会逐行告诉你填得对不对。

# %%
import matplotlib.pyplot as plt
import numpy as np

from stg_np import stm
from stg_np.backend import Array
from stg_np.gradcheck import check_pair
from stg_np.ops.activations import TANH
from stg_np.stm import STMCache, STMParams, init_stm, stm_backward, stm_forward
from stg_np.stm_recurrent import stm_recurrent_backward, stm_recurrent_forward

plt.style.use("stg_np.tutorial")

# %% [markdown]
# ## 需要哪些规则？
# 一个数，即损失，取决于所有的量。记 $dq$ 为损失对 q 的导数 $\partial\text{loss}/\partial q$：它的形状与 q 相同，q 的每个数对应一个数。三条规则：
#
# 1. **链**：若 $r = f(q)$ 是逐元素的，且没有别处用到 q，则 $dq = dr \odot f'(q)$。
# 2. **和**：若 q 被多处用到，就把各处传回来的相加。
# 3. **序**：一行的结果所流向的各处都已反向完毕，才轮到这一行反向；所以从最后一行开始。
#
# ## 要反向的是什么？
# 就是下面五行，编号后文要用：
#
# $$\begin{aligned}
# (1) \quad & a_t = x_t W + b \\
# (2) \quad & i_t = \sigma(a_i), \quad u_t = \sigma(a_u), \quad o_t = \sigma(a_o), \quad z_t = \varphi_z(a_z) \\
# (3) \quad & v_t = i_t \odot z_t \\
# (4) \quad & m_t = (1 - u_t) \odot m_{t-1} + u_t \odot v_t \\
# (5) \quad & y_t = o_t \odot \varphi(m_t)
# \end{aligned}$$
#
# 画成计算图：灰色箭头指向前方。每条箭头也有反向的一程，旁边标的就是沿它传回去的东西。

# %%
NODES = {
    "$x_t$": (0, 2.2),
    "$a_t$": (1.9, 2.2),
    "$o_t$": (4.5, 5.4),
    "$u_t$": (4.5, 3.2),
    "$i_t$": (4.5, 1.2),
    "$z_t$": (4.5, -0.6),
    "$v_t$": (6.6, 0.3),
    "$m_{t-1}$": (7.0, 4.4),
    "$m_t$": (9.2, 2.2),
    r"$\varphi(m_t)$": (11.4, 2.2),
    "$y_t$": (13.4, 4.2),
    "$m_{t+1}$": (11.4, 0.2),
}
EDGES = [  # 起点、终点、传回的东西、标签相对于中点的位置
    ("$x_t$", "$a_t$", r"$da_t\,W^\top$", (0, 0.3)),
    ("$a_t$", "$o_t$", r"$do\,o(1-o)$", (-0.85, 0.25)),
    ("$a_t$", "$u_t$", r"$du\,u(1-u)$", (0.85, -0.15)),
    ("$a_t$", "$i_t$", r"$di\,i(1-i)$", (0.85, 0.15)),
    ("$a_t$", "$z_t$", r"$dz\,\varphi_z'(a_z)$", (-0.95, -0.4)),
    ("$i_t$", "$v_t$", r"$dv \odot z$", (0.25, 0.3)),
    ("$z_t$", "$v_t$", r"$dv \odot i$", (0.3, -0.3)),
    ("$u_t$", "$m_t$", r"$dm_t \odot (v_t - m_{t-1})$", (-0.6, -0.45)),
    ("$v_t$", "$m_t$", r"$dm_t \odot u_t$", (0.6, -0.25)),
    ("$m_{t-1}$", "$m_t$", r"$dm_t \odot (1 - u_t)$", (1.05, 0.3)),
    ("$m_t$", r"$\varphi(m_t)$", r"$\cdot\,\varphi'(m_t)$", (0, 0.3)),
    (r"$\varphi(m_t)$", "$y_t$", r"$dy \odot o$", (0.6, -0.25)),
    ("$o_t$", "$y_t$", r"$dy \odot \varphi(m_t)$", (0.3, 0.4)),
    ("$m_t$", "$m_{t+1}$", r"$dm_{t+1} \odot (1 - u_{t+1})$", (1.7, 0.35)),
]
figure, axes = plt.subplots(figsize=(9.8, 4.8))
for name, (x_node, y_node) in NODES.items():
    axes.text(x_node, y_node, name, ha="center", va="center", fontsize=12)
for start, end, message, (right, up) in EDGES:
    (x_0, y_0), (x_1, y_1) = NODES[start], NODES[end]
    arrow = {"arrowstyle": "-|>", "color": plt.rcParams["text.color"], "shrinkA": 17, "shrinkB": 17, "linewidth": 1.2}
    axes.annotate("", xy=(x_1, y_1), xytext=(x_0, y_0), arrowprops=arrow)
    axes.text((x_0 + x_1) / 2 + right, (y_0 + y_1) / 2 + up, message, color="C1", ha="center", va="center", fontsize=10)
axes.set(xlim=(-0.5, 13.8), ylim=(-1.1, 5.8))
axes.axis("off")
figure.savefig("04_graph.svg")

# %% [markdown]
# 取一个很小的层，并令 φ = tanh，好让它的导数显露出来。网络其余部分会传回什么，用随机数代替。为了比较，程序包对每个量的梯度就用 `stm_backward` 里的那几行算出；请最后再看，现在先别看。

# %%
rng = np.random.default_rng(0)
B, T, D, H = 2, 4, 3, 2
params = init_stm(rng, D, H, length=T)
params = params._replace(b=params.b + 0.3 * rng.standard_normal(4 * H))
x, m_0 = rng.standard_normal((B, T, D)), rng.standard_normal((B, H))
(y, m_T), cache = stm_forward(x, m_0, params, phi=TANH)
i, u, o, z = cache.gates
v, memories, read = cache.v, cache.memories, cache.read  # read = φ(memories)

dy, dm_T = rng.standard_normal(y.shape), rng.standard_normal(m_T.shape)  # 网络其余部分可能传回的任何东西


def the_packages_gradients() -> dict[str, Array]:
    """每个量的梯度，用 stm_backward 里的那几行求出。"""
    do, dread = dy * read, dy * o
    dm = TANH.backward(dread, memories, read)
    du, dv, dm_0 = stm.scan_backward(dm, dm_T, u, v, memories, m_0)
    di, dz = dv * z, dv * i
    da = stm.gates_backward(stm.Gates(di, du, do, dz), cache.gates, cache.a, TANH)
    dx, dm_0, dparams = stm_backward(dy, dm_T, cache, params)
    found = {"do": do, "dm": dm, "du": du, "dv": dv, "dm_0": dm_0, "di": di, "dz": dz, "da": da}
    return found | {"dx": dx, "dW": dparams.W, "db": dparams.b}


theirs = the_packages_gradients()


def compare(**ours: Array) -> None:
    """逐个梯度说明是否与程序包的一致；差别只能来自舍入。"""
    for name, gradient in ours.items():
        assert gradient.shape == theirs[name].shape
        difference = abs(gradient - theirs[name]).max()
        print(f"{name:5} {'right' if difference <= 1e-12 else 'WRONG'}")
        assert difference <= 1e-12


# %% [markdown]
# ## 第 5 行：输出传回什么？
# $y_t = o_t \odot \varphi(m_t)$。两个因子，第二个里面还有 φ。
#
# **填空** $do_t = \;?$ 以及，单就 $y_t$ 而言，$dm_t = \;?$
#
# <details><summary>答案</summary>
#
# 从一个因子的角度看，另一个是常数：乘积传给每个因子的，是 dy 乘以*另一个*因子。
#
# $$do_t = dy_t \odot \varphi(m_t), \qquad d\varphi(m_t) = dy_t \odot o_t, \qquad
# dm_t = dy_t \odot o_t \odot \varphi'(m_t)$$
#
# 对 φ = tanh，φ' = 1 − tanh²，而 tanh(m) 就在缓存里。对恒等函数，φ' = 1。
#
# </details>
#
# 在下面的代码以及程序包里，`dm` 只指每个*输出*传给它自己那个记忆的部分，不含别的。

# %%
do, dm = np.zeros_like(o), np.zeros_like(memories)
for n, t, h in np.ndindex(B, T, H):
    do[n, t, h] = dy[n, t, h] * read[n, t, h]
    dm[n, t, h] = dy[n, t, h] * o[n, t, h] * (1 - read[n, t, h] ** 2)
compare(do=do, dm=dm)

# %% [markdown]
# ## 第 4 行：梯度怎样穿过记忆？
# $m_t = (1 - u_t) \odot m_{t-1} + u_t \odot v_t$，也就是 $m_{t-1} + u_t \odot (v_t - m_{t-1})$。这里要用求和规则，因为 $m_t$ 被*两处*用到：它的输出 $y_t$，以及下一个记忆 $m_{t+1}$；$m_t$ 在后者中的系数是 $1 - u_{t+1}$。
#
# **填空** $du_t = \;?$，$dv_t = \;?$，第 t 步又传给 $m_{t-1}$ 什么？
#
# <details><summary>答案</summary>
#
# $$du_t = dm_t \odot (v_t - m_{t-1}), \qquad dv_t = dm_t \odot u_t, \qquad
# \text{传给 } m_{t-1}: \; dm_t \odot (1 - u_t)$$
#
# 其中 $dm_t$ 是记忆 $m_t$ 的*完整*梯度，即用到它的两处传回的总和：
#
# $$dm_t = \underbrace{dy_t \odot o_t \odot \varphi'(m_t)}_{\text{来自 } y_t}
# + \underbrace{(1 - u_{t+1}) \odot dm_{t+1}}_{\text{来自 } m_{t+1}}$$
#
# </details>
#
# 可见 $dm_t$ 要用到 $dm_{t+1}$：循环从最后一步走向第一步。最后一步之后只有 $m_T$ 的使用者；越过第一步之后剩下的，就属于 $m_0$。

# %%
du, dv, dm_0 = np.zeros_like(u), np.zeros_like(v), np.zeros_like(m_0)
whole = np.zeros_like(memories)
for n, h in np.ndindex(B, H):
    from_after = dm_T[n, h]
    for t in reversed(range(T)):
        whole[n, t, h] = dm[n, t, h] + from_after
        m_before = memories[n, t - 1, h] if t > 0 else m_0[n, h]
        du[n, t, h] = whole[n, t, h] * (v[n, t, h] - m_before)
        dv[n, t, h] = whole[n, t, h] * u[n, t, h]
        from_after = whole[n, t, h] * (1 - u[n, t, h])
    dm_0[n, h] = from_after
compare(du=du, dv=dv, dm_0=dm_0)

# %% [markdown]
# 程序包里的循环，一次对所有样本和单元调用第 1 章的 `update_backward`：
# ```python
# # stg_np/stm.py
#     from_after = dm_T
#     for t in reversed(range(v.shape[1])):
#         before = memories[:, t - 1] if t > 0 else m_0
#         du[:, t], dv[:, t], from_after = update_backward(dm[:, t] + from_after, u[:, t], v[:, t], before)
#     return du, dv, from_after
# ```
# ## “dm_T 就是 t = T 时的 dm_t”
# 名字让人这么想，但这是错的。反向函数的*参数* `dm_T` 是**最后那个记忆的使用者**传回来的：序列的下一段，或者没有人用（那就是 0）。记忆 $m_T$ 的*完整*梯度，还要加上输出 $y_T$ 传回的部分，因为 $y_T$ 也用到 $m_T$：

# %%
assert np.allclose(whole[:, -1], dm[:, -1] + dm_T, rtol=0, atol=1e-15)
assert abs(whole[:, -1] - dm_T).max() > 0.1
print("argument dm_T       ", dm_T[0].round(3))
print("whole gradient of m_T", whole[0, -1].round(3))

# %% [markdown]
# 第 4 行也正是门控记忆存在的理由。每往回一步，梯度乘以 1 − u，而且在这种形式里不再乘别的：没有矩阵，没有 tanh。凡是 u 小的地方，梯度几乎完整地到达。现在让各步输出都不传回任何东西，只有最后的记忆传回一点：

# %%
dm_0_from_the_end = stm_backward(0 * dy, dm_T, cache, params)[1]  # 三个结果中的第二个
assert np.allclose(dm_0_from_the_end, (1 - u).prod(1) * dm_T, rtol=0, atol=1e-12)

# %% [markdown]
# ## 第 3 行：又是乘积
# $v_t = i_t \odot z_t$。
#
# **填空** $di_t = \;?$，$dz_t = \;?$
#
# <details><summary>答案</summary>
#
# $$di_t = dv_t \odot z_t, \qquad dz_t = dv_t \odot i_t$$
#
# </details>

# %%
di, dz = np.zeros_like(i), np.zeros_like(z)
for n, t, h in np.ndindex(B, T, H):
    di[n, t, h] = dv[n, t, h] * z[n, t, h]
    dz[n, t, h] = dv[n, t, h] * i[n, t, h]
compare(di=di, dz=dz)

# %% [markdown]
# ## 第 2 行：穿过软开关
# 每一个都经过自己的导数，放进打包的 $da = [da_i \,|\, da_u \,|\, da_o \,|\, da_z]$ 中属于自己的四分之一。
#
# **填空** $da_i = \;?$ … $da_z = \;?$（设 $\varphi_z = \tanh$）
#
# <details><summary>答案</summary>
#
# 由第 1 章的 σ' = σ (1 − σ)，以及 tanh' = 1 − tanh²：
#
# $$da_i = di \odot i \odot (1 - i), \quad da_u = du \odot u \odot (1 - u), \quad
# da_o = do \odot o \odot (1 - o), \quad da_z = dz \odot (1 - z^2)$$
#
# </details>

# %%
da = np.zeros((B, T, 4 * H))
for n, t, h in np.ndindex(B, T, H):
    da[n, t, 0 * H + h] = di[n, t, h] * i[n, t, h] * (1 - i[n, t, h])
    da[n, t, 1 * H + h] = du[n, t, h] * u[n, t, h] * (1 - u[n, t, h])
    da[n, t, 2 * H + h] = do[n, t, h] * o[n, t, h] * (1 - o[n, t, h])
    da[n, t, 3 * H + h] = dz[n, t, h] * (1 - z[n, t, h] ** 2)
compare(da=da)

# %% [markdown]
# ## 第 1 行：加权和
# 对一个样本的一步，逐个数写出：$a_k = \sum_d x_d W_{dk} + b_k$。
#
# **填空** $db_k = \;?$，$dW_{dk} = \;?$，$dx_d = \;?$ 谁用到谁，用到几次？
#
# <details><summary>答案</summary>
#
# $W_{dk}$ 的系数是 $x_d$，$x_d$ 的系数是 $W_{dk}$，$b_k$ 的系数是 1。每个样本的每一步都用到 W 和 b，所以它们的梯度要对所有样本、所有步求和。而 $x_d$ 被全部 4H 个和用到：
#
# $$db_k = \sum_{n,t} da_k, \qquad dW_{dk} = \sum_{n,t} x_d\, da_k, \qquad dx_d = \sum_k da_k W_{dk}$$
#
# 把样本和步排成行，写成矩阵：$db = \sum da$，$dW = x^\top da$，$dx = da\, W^\top$。
#
# </details>

# %%
dx, dW, db = np.zeros_like(x), np.zeros_like(params.W), np.zeros_like(params.b)
for n, t, k in np.ndindex(B, T, 4 * H):
    db[k] += da[n, t, k]
    for d in range(D):
        dW[d, k] += x[n, t, d] * da[n, t, k]
        dx[n, t, d] += da[n, t, k] * params.W[d, k]
compare(dx=dx, dW=dW, db=db)

# %% [markdown]
# 全部就是这些。程序包的反向就是这五行，次序也相同；每一行的注释写明它反的是前向的哪一行：
# ```python
# # stg_np/stm.py
#     do = dy * read  # from y = o ⊙ read
#     dread = dy * gates.o  # from y = o ⊙ read
#     dm = phi.backward(dread, memories, read)  # from read = φ(m)
#     du, dv, dm_0 = scan_backward(dm, dm_T, gates.u, v, memories, m_0)  # from the scan
#     di = dv * gates.z  # from v = i ⊙ z
#     dz = dv * gates.i  # from v = i ⊙ z
#     da = gates_backward(Gates(di, du, do, dz), gates, a, phi_z)  # from the gates, (B, T, 4H)
#     dp, db, dw = preactivations_backward(da, a, params)  # from the pre-activations
#     dx = matmul(dp, params.W.T)  # from p = x W
#     dW = outer_sum(x, dp)  # from p = x W
#     return dx, dm_0, STMParams(dW, db, None, dw)
# ```
# （对完整的门，`dp` 就是 `da`；`dw` 用于对角门，见习题 3。）
#
# ## 让门看到记忆，会有什么变化？
# 循环形式中，第 1 行是 $a_t = x_t W + b + m_{t-1} R$。于是 $m_{t-1}$ 又多了*第三处*用到它的地方：第 t 步的预激活值。
#
# **填空** 还要多传给 $m_{t-1}$ 什么？$dR = \;?$
#
# <details><summary>答案</summary>
#
# $m_{t-1} R$ 与 $x_t W$ 构造相同，所以照第 1 行的规则：传给 $m_{t-1}$ 的是 $da_t R^\top$，而
#
# $$dR = \sum_t m_{t-1}^\top\, da_t, \qquad
# dm_t = dy_t \odot o_t \odot \varphi'(m_t) + (1 - u_{t+1}) \odot dm_{t+1} + da_{t+1} R^\top.$$
#
# </details>
#
# 最后一项要求先有 $da_{t+1}$，才能知道 $dm_t$。因此必须把一步的五行全部反向完，下一步才能开始：不能再用一次乘法处理所有步。

# %%
R = 0.5 * rng.standard_normal((H, 4 * H))
recurrent = params._replace(R=R)
(y_r, m_T_r), steps = stm_recurrent_forward(x, m_0, recurrent, phi=TANH)

dR, dW_r = np.zeros_like(R), np.zeros_like(params.W)
after = dm_T  # 从第 t 步之后传来的
for t in reversed(range(T)):
    step = steps.steps[t]
    gates, v_t, m_before, read_t = step.gates, step.v, step.m_before, step.read
    dm_t = dy[:, t] * gates.o * (1 - read_t**2) + after  # 第 5 行，加上从后面传来的
    du_t, dv_t = dm_t * (v_t - m_before), dm_t * gates.u  # 第 4 行
    di_t, dz_t, do_t = dv_t * gates.z, dv_t * gates.i, dy[:, t] * read_t  # 第 3 行和第 5 行
    soft = (di_t * gates.i * (1 - gates.i), du_t * gates.u * (1 - gates.u), do_t * gates.o * (1 - gates.o))  # 第 2 行
    da_t = np.concatenate([*soft, dz_t * (1 - gates.z**2)], 1)
    dR, dW_r = dR + m_before.T @ da_t, dW_r + x[:, t].T @ da_t  # 第 1 行
    after = dm_t * (1 - gates.u) + da_t @ R.T  # 传给前一个记忆：第 4 行，现在还有第 1 行

_, their_dm_0, their_params = stm_recurrent_backward(dy, dm_T, steps, recurrent)
assert their_params.R is not None
assert np.allclose(dR, their_params.R, rtol=0, atol=1e-12)
assert np.allclose(dW_r, their_params.W, rtol=0, atol=1e-12)
assert np.allclose(after, their_dm_0, rtol=0, atol=1e-12)

# %% [markdown]
# ## 可是，它*对*吗？
# 两份推导一致，说明不了多少：它们可能犯同样的错。真正的裁判是前向本身：把输入移动一点，输出就必须像反向所说的那样移动。`check_pair` 对每个输入和参数都这样检查；第 6 章解释它的原理，还会故意犯错，看它能否发现。这里由它来评判本章的循环：


# %%
def backward_by_hand(doutputs: tuple[Array, Array], kept: tuple[STMCache, STMParams]) -> tuple[Array, Array, STMParams]:
    """再写一遍这五行，用数组。"""
    (dy, dm_T), (cache, params) = doutputs, kept
    i, u, o, z = cache.gates
    dm = dy * o * (1 - cache.read**2)
    du, dv, after = np.empty_like(u), np.empty_like(u), dm_T
    for t in reversed(range(u.shape[1])):
        before = cache.memories[:, t - 1] if t > 0 else cache.m_0
        whole = dm[:, t] + after
        du[:, t], dv[:, t], after = whole * (cache.v[:, t] - before), whole * u[:, t], whole * (1 - u[:, t])
    parts = (dv * z * i * (1 - i), du * u * (1 - u), dy * cache.read * o * (1 - o), dv * i * (1 - z**2))
    da = np.concatenate(parts, -1)
    dW = np.einsum("btd,btk->dk", cache.x, da)
    return da @ params.W.T, after, STMParams(dW, da.sum((0, 1)))


def forward(x: Array, m_0: Array, params: STMParams) -> tuple[tuple[Array, Array], tuple[STMCache, STMParams]]:
    outputs, cache = stm_forward(x, m_0, params, phi=TANH)
    return outputs, (cache, params)


report = check_pair(forward, backward_by_hand, {"x": x, "m_0": m_0, "params": params}, name="by hand")
print("by hand:", "ok" if report.ok else "WRONG")
assert report.ok
assert report.error < 1e-8

# %% [markdown]
# ## 用本领域的话说
# dq 就是**梯度**。那张图叫**计算图**，沿图往回走叫**反向传播**，又叫**反向模式自动微分**；边上传递的是**向量–雅可比积**（vector–Jacobian product）。按步倒着循环，叫**随时间反向传播**（Werbos, Proceedings of the IEEE 1990）。使反向传播在神经网络中流行起来的是 Rumelhart, Hinton & Williams（Nature 1986）；方法本身更早（Linnainmaa 1970）。梯度穿过门控记忆、途中没有矩阵的那条路，LSTM 的作者称为**恒定误差传送带**（constant error carousel；Hochreiter & Schmidhuber 1997）。
#
# ## 小结
# * 链、和、序：没有用到别的规则。
# * 第 4 行是唯一的循环：$dm_t$ 等于 $y_t$ 传回的，加上 $(1 - u_{t+1}) \odot dm_{t+1}$。
# * 参数 `dm_T` 是最后那个记忆的使用者传回的；$m_T$ 的完整梯度还要加上 $y_T$ 传回的。
# * 循环形式再加一项 $da_{t+1} R^\top$，并且 $dR = \sum_t m_{t-1}^\top da_t$。
# * 这些全在一页纸上：[公式速查](../../cheat_sheet.zh.md)。
#
# ## 习题
# **1. 填空。** 填好 [exercises/04_the_blanks.py](../../exercises/04_the_blanks.py)，反复运行，直到每一行都对。
# <details><summary>提示</summary>乘积传给每个因子的，是传来的东西乘以另一个因子。</details>
#
# **2. 一次乘法求 dR。** 上面的循环把 T 个小乘积相加。请在循环之后，用两个矩阵的一次乘法求出 dR。
# <details><summary>提示</summary>把所有 da_t 都留下。与 dW 一样，样本和步就是两个矩阵的行。</details>
#
# **3. 对角门。** 现在 $a_g = w_g \odot a_z + b_g$，g = i, u, o，只有 $a_z = xW_z + b_z$ 看得到 x。求 dw、db 和 $a_z$ 的完整梯度，并用程序包核对。
# <details><summary>提示</summary>a_z 被四处用到：候选值和三个门。</details>
#
# 解答：[solutions/04_backward_by_hand.py](../../solutions/04_backward_by_hand.py)。下一章：[梯度能走多远](05_how_far_a_gradient_travels.ipynb)
