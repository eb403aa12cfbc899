"""Transforms beside the real MLX: the same values, trees, dtypes and kinds of errors."""

import collections

import numpy as np
import pytest

import ingot as mx

pytestmark = pytest.mark.peers

Pair = collections.namedtuple("Pair", "a b")


@pytest.fixture(scope="module")
def mlx():
    core = pytest.importorskip("mlx.core")
    core.set_default_device(core.cpu)
    return core


EXPRESSIONS = [
    "m.grad(L)(x)",
    "m.grad(L, argnums=[0])(x)",
    "m.grad(L, argnums=(0,))(x)",
    "m.grad(lambda x,y:(x*y).sum(), argnums=(1,0))(x,x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnums=[0,0])(x,x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnums=2)(x,x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnums=[])(x,x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnames='y')(x,y=x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnames=['y'])(x,y=x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnums=0, argnames=['y'])(x,y=x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnums=[0], argnames=['y'])(x,y=x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnums=[], argnames=['y'])(x,y=x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnums=[], argnames=['x','y'])(x=x,y=x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnames=['x','y'])(x=x,y=x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnames=['x','x'])(x=x,y=x+1)",
    "m.grad(lambda x,y:(x*y).sum(), argnames=['z'])(x=x,y=x+1)",
    "m.grad(L)()",
    "m.grad(L)(x=x)",
    "m.value_and_grad(lambda x:((x*x).sum(), 3, 'a'))(x)",
    "m.value_and_grad(lambda x:((x*x).sum(), x, {'a':x}))(x)",
    "m.value_and_grad(lambda x:(x, (x*x).sum()))(x)",
    "m.value_and_grad(lambda x:{'a':(x*x).sum()})(x)",
    "m.grad(lambda x:None)(x)",
    "m.grad(lambda x:())(x)",
    "m.grad(lambda x:(1,x.sum()))(x)",
    "m.grad(lambda x:((x.sum(),),1))(x)",
    "m.grad(lambda p: (p['a']).sum())({'a':x,'b':3})",
    "m.grad(lambda p: (p['a']).sum())({'a':x,'b':'s'})",
    "m.grad(lambda p: p.sum())(m.array([1,2,3]))",
    "m.grad(lambda p: (p.a*p.b).sum())(Pair(x,x))",
    "m.grad(L, argnums=1.5)",
    "m.grad(L, argnums='x')",
    "m.grad(L, argnames=1)",
    "m.grad(lambda x: x.item())(m.array(1.0))",
    "m.grad(m.grad(m.grad(lambda x: x**4)))(m.array(2.0))",
    "m.grad(lambda x,y=2: x*y)(m.array(1.0))",
    "m.grad(lambda *a,**k: a[0]*k['z'])(m.array(1.0), z=m.array(3.0))",
    "m.grad(lambda x,y: (x*y).sum())(x, 3)",
    "m.grad(lambda x,y: (x*y).sum())(x, np.ones(3,np.float32))",
    "m.grad(lambda x: (x*x).sum())(np.ones(3,np.float32))",
    "m.grad(lambda a: a)(m.array(2.0))",
    "m.value_and_grad(lambda a: a)(m.array(2.0))",
    "m.grad(lambda a: m.array(2.0))(m.array(2.0))",
    "m.grad(lambda x: x.astype(m.float16).sum())(x)",
    "m.grad(lambda x: m.stop_gradient(x*x).sum()+x.sum())(x)",
    "m.grad(lambda x: x.sum())(m.zeros((0,3)))",
    "m.grad(lambda x: (x[m.array([0,0,1])]*m.array([1.,2.,3.])).sum())(x)",
    "m.grad(lambda x: m.split(x,3)[1].sum())(x)",
    "m.grad(lambda x: m.max(x)*m.argmax(x))(x)",
    "m.grad(lambda x: m.prod(x))(m.array([1.,0.,3.]))",
    "m.grad(lambda x: m.where(x>1,x*x,0).sum())(x)",
    "m.grad(lambda x: m.sqrt(x).sum())(m.zeros(2))",
    "m.grad(lambda x: m.abs(x).sum())(m.zeros(2))",
    "m.grad(lambda x: m.maximum(x,0).sum())(m.zeros(2))",
    "m.grad(lambda x: m.max(x))(m.ones(4))",
    "m.grad(lambda x: m.minimum(x,m.ones(2)).sum())(m.ones(2))",
    "m.grad(lambda x: m.clip(x,1,2).sum())(m.array([0.,1.,1.5,2.,3.]))",
    "m.grad(lambda x: (x**2).sum())(m.array([0.,1.,-1]))",
    "m.grad(lambda x: (2.0**x).sum())(m.array([0.,1.,-1]))",
    "m.grad(lambda x,y: (x**y).sum(), argnums=(0,1))(m.array([0.,1.,2]), m.array([2.,0.,3]))",
    "m.grad(lambda x: m.softmax(x)[0])(x)",
    "m.grad(lambda x: m.logsumexp(x))(x)",
    "m.grad(lambda x: m.var(x))(x)",
    "m.grad(lambda x: m.std(x))(x)",
    "m.grad(lambda x: m.std(x))(m.ones(3))",
    "m.vjp(lambda x:x*x,[x],[x])",
    "m.vjp(lambda x:x*x,(x,),(x,))",
    "m.vjp(lambda x:(x*x,x),[x],[x,x])",
    "m.vjp(lambda x:x*x,[x],[m.ones(2)])",
    "m.vjp(lambda x:x*x,[x],[m.ones(3,dtype=m.int32)])",
    "m.vjp(lambda x,y:x*y,[x],[m.ones(3)])",
    "m.vjp(lambda x:x*x,[3.0],[m.ones(3)])",
    "m.vjp(lambda x: x,[x],[m.array(1.0)])",
    "m.jvp(lambda x:x*x,[x],[x])",
    "m.jvp(lambda x:(x*x,x),(x,),(x,))",
    "m.jvp(lambda x:x*x,[x],[x,x])",
    "m.jvp(lambda x:x*x,[x],[m.ones(2)])",
    "m.jvp(lambda x:x*x,[x],[m.ones(3,dtype=m.int32)])",
    "m.jvp(lambda x:m.array(1.0),[x],[m.ones(3)])",
    "m.jvp(lambda x:m.stop_gradient(x)*x,[x],[m.ones(3)])",
    "m.jvp(lambda x:m.argmax(x),[x],[x])",
    "m.vmap(lambda x:x*2)(a)",
    "m.vmap(lambda x,y:x+y, in_axes=(0,None))(a,x)",
    "m.vmap(lambda x,y:x+y, in_axes=(1,-1))(a,a)",
    "m.vmap(lambda x: x.sum(), in_axes=-1)(t)",
    "m.vmap(lambda x: x*1, in_axes=-1, out_axes=-1)(t)",
    "m.vmap(lambda x: x*1, in_axes=-1, out_axes=1)(t)",
    "m.vmap(lambda x: x*1, in_axes=3)(t)",
    "m.vmap(lambda x: x*1, out_axes=3)(t)",
    "m.vmap(lambda x: x*1, out_axes=-4)(t)",
    "m.vmap(lambda d: d['a']+d['b'])({'a':a,'b':a})",
    "m.vmap(lambda d: d['a']+d['b'], in_axes={'a':0,'b':None})({'a':a,'b':x})",
    "m.vmap(lambda x: (x,{'a':x*2}))(a)",
    "m.vmap(lambda x: (x*1,{'a':x*2}), out_axes=(0,{'a':1}))(a)",
    "m.vmap(lambda x: (x*1,{'a':x*2}), out_axes=(0,1))(a)",
    "m.vmap(lambda x: m.array(1.0))(a)",
    "m.vmap(lambda x: 3.0)(a)",
    "m.vmap(lambda x,y: x*y)(a,2.0)",
    "m.vmap(lambda x,y: x*y, in_axes=(0,None))(a,'a')",
    "m.vmap(lambda x,y: x+y)(a,t)",
    "m.vmap(lambda x: x, in_axes=(None,))(a)",
    "m.vmap(lambda x,y: x, in_axes=(0,))(a,a)",
    "m.vmap(lambda x: x)(m.array(1.0))",
    "m.vmap(lambda x: x)(m.zeros((0,3)))",
    "m.vmap(m.vmap(lambda x,y: x@y, in_axes=(None,0)), in_axes=(0,None))(t,m.ones((5,4,2)))",
    "m.vmap(lambda x,y=2: x*y)(a)",
    "m.vmap(lambda x,y=2: x*y)(a, y=a)",
    "m.vmap(lambda x: x.item())(a)",
    "m.vmap(lambda x: x[m.array([0,2])])(a)",
    "m.vmap(lambda x,i: x[i])(a, m.array([0,2]))",
    "m.vmap(lambda x: m.zeros(3)+x.shape[0])(a)",
    "m.vmap(lambda x: m.concatenate([x,m.ones(2)]))(a)",
    "m.vmap(lambda x: m.softmax(x,axis=-1))(t)",
    "m.vmap(lambda x: x.argmax())(t)",
    "m.vmap(lambda x: m.var(x,axis=0))(t)",
    "m.vmap(lambda x,y: m.where(x>y,x,y),in_axes=(0,None))(a,x)",
    "m.vmap(m.grad(lambda x: (x**3).sum()))(a)",
    "m.grad(lambda x: m.vmap(lambda y: (y*y).sum())(x).sum())(a)",
    "m.vmap(lambda x: m.vjp(lambda y:y*y,[x],[x])[1][0])(a)",
    "m.vmap(lambda x: m.jvp(lambda y:y*y,[x],[x])[1][0])(a)",
    "m.vmap(m.compile(lambda x: m.exp(x)*0))(a)",
    "m.vmap(m.checkpoint(lambda x: x*x))(a)",
    "m.vmap(lambda x: m.stop_gradient(x))(a)",
    "m.vmap(lambda p: p.a+p.b)(Pair(a,a))",
    "m.vmap(lambda a,b: m.matmul(a,b), in_axes=(0,1))(t, m.ones((4,2,3)))",
    "m.vmap(lambda a: m.split(a,3))(a)",
    "m.vmap(lambda a: m.split(a,3)[1])(a)",
    "m.vmap(3)",
    "m.vmap(lambda x:x, in_axes='a')(a)",
    "m.vmap(lambda x:x, in_axes=1.0)(a)",
    "m.vmap(lambda x:x, in_axes=(0,0))(a)",
    "m.vmap(lambda l: l[0]+l[1])([a,a])",
    "m.vmap(lambda x: x.reshape(-1), in_axes=1)(t)",
    "m.vmap(lambda x: x.T, in_axes=1)(t)",
    "m.vmap(lambda x: m.broadcast_to(x,(2,)))(x)",
    "m.vmap(lambda x: m.pad(x,1), in_axes=1)(a)",
    "m.vmap(lambda x: m.take(m.array([1.,2.,3.,4.]),x), in_axes=0)(m.array([[0,1],[2,3]]))",
    "m.vmap(lambda x: m.repeat(x,2), in_axes=1)(a)",
    "m.vmap(lambda x: m.take_along_axis(x,m.array([1,0]),axis=0))(a)",
    "m.vmap(lambda x: m.tensordot(x,x,1))(a)",
    "m.vmap(lambda x: x[None,:,0])(t)",
    "m.vmap(lambda x: x[..., ::-1])(t)",
    "m.vmap(lambda x: m.arange(3)*x.sum().astype(m.int32))(t)",
    "m.compile(lambda x,y: x+y)(x,x)",
    "m.compile(lambda: m.array(1.0)+2)()",
    "m.compile(lambda x: (x,{'a':[x*2]},None,3,'s'))(x)",
    "m.compile(lambda x: 3)(x)",
    "m.compile(lambda x: None)(x)",
    "m.compile(lambda x,n: x*n)(x,3)",
    "m.compile(lambda x,n=1: x*n)(x,n=3)",
    "m.compile(lambda x,n: x if n is None else x*2)(x,None)",
    "m.compile(lambda x,n: x*len(n))(x,'abc')",
    "m.compile(lambda x,n: x*n['k'])(x,{'k':2})",
    "m.compile(lambda x,n: x)(x,{1,2})",
    "m.compile(lambda p: p.a*p.b)(Pair(x,x))",
    "m.compile(lambda x: Pair(x,x*2))(x)",
    "m.compile(m.compile(lambda x:x+1))(x)",
    "m.grad(m.compile(lambda x:(x*x).sum()))(x)",
    "m.compile(m.grad(lambda x:(x*x).sum()))(x)",
    "m.compile(lambda x: x.item())(m.array(1.0))",
    "m.compile(lambda x: x if x>0 else -x)(m.array(1.0))",
    "m.compile(lambda x: int(x))(m.array(1.0))",
    "m.compile(lambda x: np.array(x))(m.array(1.0))",
    "m.compile(3)",
    "m.compile(lambda x:x, inputs=3)(x)",
    "m.compile(lambda x:x, inputs={'a':3,'b':'x'})(x)",
    "m.compile(lambda x:x, inputs=x)(x)",
    "m.compile(lambda a,b: (a,b,a))(x,a)",
    "m.compile(lambda x: m.vmap(lambda y:y.sum())(x))(a)",
    "m.compile(lambda x: m.value_and_grad(lambda y:((y*y).sum(),y*3))(x))(a)",
    "m.grad(lambda x: m.compile(m.checkpoint(lambda y: m.sin(y)))(x).sum())(x)",
    "m.compile(m.checkpoint(lambda y: m.sin(y)))(x)",
    "m.checkpoint(lambda y,s: {'a':m.sin(y)*s})(x,2)",
    "m.checkpoint(lambda y,*,s: {'a':m.sin(y)*s})(x,s=2)",
    "m.checkpoint(3)",
    "m.checkpoint(lambda y:(y,None,'a'))(x)",
    "m.grad(lambda x: m.checkpoint(lambda d: d['w']*d['w'])({'w':x}).sum())(x)",
    "m.compile(lambda x: m.zeros((0,))+x)(m.zeros((0,)))",
    "m.compile(lambda x,t: x*t[0]*t[1])(x,(2,3))",
    "m.compile(lambda x,t: x*t[0]*t[1])(x,[2,x])",
    "str({'a':m.array([1,2])})+str([m.array(1.0)])",
    "[str(m.array([1.5,2]).astype(d)) for d in (m.float16,m.bfloat16,m.int8,m.bool_,m.complex64)]",
]  # fmt: skip


def plain(value, m):
    """The value with its arrays as (shape, dtype, rounded elements)."""
    if isinstance(value, m.array):
        name = str(value.dtype).split(".")[-1]
        seen = np.array(value if name == "complex64" else value.astype(m.float32))
        return tuple(value.shape), name, np.round(seen, 4).tolist()
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(v, m) for v in value]
    if isinstance(value, dict):
        return {k: plain(v, m) for k, v in value.items()}
    return value


def outcome(run, m):
    """repr of what `run` gives (so that nan equals itself), or the error."""
    try:
        return repr(plain(run(m), m))
    except Exception as error:
        return error


def compare(run, mlx):
    ours, theirs = outcome(run, mx), outcome(run, mlx)
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
    else:
        assert ours == theirs


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expression(mlx, text):
    def run(m):
        names = {"m": m, "np": np, "Pair": Pair, "x": m.array([1.0, 2.0, 3.0])}
        names["a"] = m.arange(6).reshape(2, 3).astype(m.float32)
        names["t"] = m.arange(24).reshape(2, 3, 4).astype(m.float32)
        names["L"] = lambda x, *rest, **named: (x * x).sum()
        return eval(text, names)

    compare(run, mlx)


def in_place_in_grad(m):
    def f(x):
        x[0] = x[1] * x[2]
        x[1:] += x[0]
        return (x * x).sum()

    x = m.array([1.0, 2.0, 3.0])
    return m.grad(f)(x), x


def in_place_in_vmap(m):
    def f(x, v):
        x[1:] += v
        x *= 2
        return x

    return m.vmap(f)(m.ones((2, 3)), m.array([10.0, 20.0]))


def captured_array_rebound_in_grad(m):
    total = m.array([1.0, 2.0])

    def f(x):
        total[0] = x[0] * 2
        return (total * x).sum()

    return m.grad(f)(m.array([3.0, 4.0])), total


def numpy_view_written_in_grad(m):
    def f(x):
        view = np.array(x, copy=False)
        view[:] *= view
        return x.sum()

    x = m.array([3.0])
    return m.value_and_grad(f)(x), x


def state_in_a_tree(m):
    state = {"a": {"b": [m.array(1.0), (m.array(2.0),)]}}

    def f(x):
        state["a"]["b"][0] = state["a"]["b"][0] + x
        state["a"]["c"] = x
        return state["a"]["b"][1][0]

    g = m.compile(f, inputs=state, outputs=state)
    return g(m.array(2.0)), g(m.array(2.0)), state


def state_kept_elsewhere(m):
    state = {"w": m.array(1.0)}

    def f(x):
        state["w"] = state["w"] + x

    g = m.compile(f, inputs=state, outputs=state)
    kept = [state["w"]]
    for _ in range(3):
        g(m.array(1.0))
        kept.append(state["w"])
    return kept


def state_swapped(m):
    state = [m.array(1.0), m.array(2.0)]

    def f():
        state[0], state[1] = state[1], state[0]

    g = m.compile(f, inputs=state, outputs=state)
    g()
    first = list(state)
    g()
    return first, state


def state_appended(m):
    state = []

    def f(x):
        state.append(x * 2)
        return x

    g = m.compile(f, outputs=state)
    return g(m.array(1.0)), g(m.array(2.0)), state


def state_that_one_array_has_twice(m):
    a = m.array(1.0)
    state = {"w": a, "v": a}

    def f(x):
        state["w"] = state["w"] + x

    g = m.compile(f, inputs=state, outputs=state)
    g(m.array(3.0))
    g(m.array(3.0))
    return state


def training_step(m):
    state = {"w": m.array([1.0, 2.0, 3.0])}

    def step(x):
        loss, gradient = m.value_and_grad(lambda w, x: ((w * x) ** 2).sum())(state["w"], x)
        state["w"] = state["w"] - 0.01 * gradient
        return loss

    g = m.compile(step, inputs=state, outputs=state)
    return [g(m.array([1.0, 0.5, 0.25])) for _ in range(4)], state


def random_state_captured(m):
    m.random.seed(3)
    state = {"x": m.array(1.0)}
    captured = [state, m.random.state]

    def f(y):
        state["x"] = state["x"] + m.random.uniform() * y
        return state["x"]

    g = m.compile(f, inputs=captured, outputs=captured)
    return g(m.array(1.0)), g(m.array(1.0)), state, m.random.uniform()


def random_numbers_in_transforms(m):
    m.random.seed(1)
    mapped = m.vmap(lambda x: x + m.random.uniform())(m.zeros(3))
    gradient = m.grad(lambda x: x * m.random.uniform())(m.array(1.0))
    compiled = m.compile(lambda: m.random.uniform())
    return mapped, gradient, bool((compiled() == compiled()).item()), m.random.uniform()


def shapeless(m):
    f = m.compile(lambda x: m.sin(x) * 2, shapeless=True)
    return f(m.ones(3)), f(m.ones(5)), f(m.ones((2, 2))), f(m.ones(0))


@pytest.mark.parametrize(
    "run",
    [
        in_place_in_grad,
        in_place_in_vmap,
        captured_array_rebound_in_grad,
        numpy_view_written_in_grad,
        state_in_a_tree,
        state_kept_elsewhere,
        state_swapped,
        state_appended,
        state_that_one_array_has_twice,
        training_step,
        random_state_captured,
        random_numbers_in_transforms,
        shapeless,
    ],
    ids=lambda run: run.__name__,
)
def test_programs(mlx, run):
    compare(run, mlx)
