"""The methods of tensors that PyTorch also has as functions: `pullback.exp(x)` is `x.exp()`."""

from .tensor import Tensor
from .tensor.mathematics import polygamma, real
from .tensor.special import igamma, igammac

abs = Tensor.abs
absolute = Tensor.absolute
acos = Tensor.acos
acosh = Tensor.acosh
add = Tensor.add
addcdiv = Tensor.addcdiv
addcmul = Tensor.addcmul
all = Tensor.all
allclose = Tensor.allclose
amax = Tensor.amax
amin = Tensor.amin
aminmax = Tensor.aminmax
angle = Tensor.angle
any = Tensor.any
arccos = Tensor.arccos
arccosh = Tensor.arccosh
arcsin = Tensor.arcsin
arcsinh = Tensor.arcsinh
arctan = Tensor.arctan
arctan2 = Tensor.arctan2
arctanh = Tensor.arctanh
argmax = Tensor.argmax
argmin = Tensor.argmin
argsort = Tensor.argsort
argwhere = Tensor.argwhere
asin = Tensor.asin
asinh = Tensor.asinh
atan = Tensor.atan
atan2 = Tensor.atan2
atanh = Tensor.atanh
bincount = Tensor.bincount
bitwise_and = Tensor.bitwise_and
bitwise_left_shift = Tensor.bitwise_left_shift
bitwise_not = Tensor.bitwise_not
bitwise_or = Tensor.bitwise_or
bitwise_right_shift = Tensor.bitwise_right_shift
bitwise_xor = Tensor.bitwise_xor
bmm = Tensor.bmm
broadcast_to = Tensor.broadcast_to
ceil = Tensor.ceil
cholesky = Tensor.cholesky
cholesky_inverse = Tensor.cholesky_inverse
cholesky_solve = Tensor.cholesky_solve
chunk = Tensor.chunk
clamp = Tensor.clamp
clamp_max = Tensor.clamp_max
clamp_min = Tensor.clamp_min
clip = Tensor.clip
clone = Tensor.clone
conj = Tensor.conj
conj_physical = Tensor.conj_physical
copysign = Tensor.copysign
corrcoef = Tensor.corrcoef
cos = Tensor.cos
cosh = Tensor.cosh
count_nonzero = Tensor.count_nonzero
cov = Tensor.cov
cummax = Tensor.cummax
cummin = Tensor.cummin
cumprod = Tensor.cumprod
cumsum = Tensor.cumsum
deg2rad = Tensor.deg2rad
det = Tensor.det
detach = Tensor.detach
diff = Tensor.diff
digamma = Tensor.digamma
dist = Tensor.dist
div = Tensor.div
divide = Tensor.divide
dot = Tensor.dot
eq = Tensor.eq
equal = Tensor.equal
erf = Tensor.erf
erfc = Tensor.erfc
erfinv = Tensor.erfinv
exp = Tensor.exp
exp2 = Tensor.exp2
expm1 = Tensor.expm1
fix = Tensor.fix
flatten = Tensor.flatten
flip = Tensor.flip
float_power = Tensor.float_power
floor = Tensor.floor
floor_divide = Tensor.floor_divide
fmax = Tensor.fmax
fmin = Tensor.fmin
fmod = Tensor.fmod
frac = Tensor.frac
frexp = Tensor.frexp
gather = Tensor.gather
gcd = Tensor.gcd
ge = Tensor.ge
greater = Tensor.greater
greater_equal = Tensor.greater_equal
gt = Tensor.gt
heaviside = Tensor.heaviside
histc = Tensor.histc
histogram = Tensor.histogram
hypot = Tensor.hypot
i0 = Tensor.i0
index_select = Tensor.index_select
inverse = Tensor.inverse
is_floating_point = Tensor.is_floating_point
isclose = Tensor.isclose
isfinite = Tensor.isfinite
isinf = Tensor.isinf
isnan = Tensor.isnan
isneginf = Tensor.isneginf
isposinf = Tensor.isposinf
isreal = Tensor.isreal
kthvalue = Tensor.kthvalue
lcm = Tensor.lcm
ldexp = Tensor.ldexp
le = Tensor.le
lerp = Tensor.lerp
less = Tensor.less
less_equal = Tensor.less_equal
lgamma = Tensor.lgamma
log = Tensor.log
log10 = Tensor.log10
log1p = Tensor.log1p
log2 = Tensor.log2
log_softmax = Tensor.log_softmax
logaddexp = Tensor.logaddexp
logaddexp2 = Tensor.logaddexp2
logcumsumexp = Tensor.logcumsumexp
logdet = Tensor.logdet
logical_and = Tensor.logical_and
logical_not = Tensor.logical_not
logical_or = Tensor.logical_or
logical_xor = Tensor.logical_xor
logit = Tensor.logit
logsumexp = Tensor.logsumexp
lt = Tensor.lt
lu_solve = Tensor.lu_solve
masked_fill = Tensor.masked_fill
masked_select = Tensor.masked_select
matrix_exp = Tensor.matrix_exp
matrix_power = Tensor.matrix_power
max = Tensor.max
maximum = Tensor.maximum
mean = Tensor.mean
median = Tensor.median
min = Tensor.min
minimum = Tensor.minimum
mm = Tensor.mm
mode = Tensor.mode
movedim = Tensor.movedim
msort = Tensor.msort
mul = Tensor.mul
multiply = Tensor.multiply
mvlgamma = Tensor.mvlgamma
nan_to_num = Tensor.nan_to_num
nanmean = Tensor.nanmean
nanmedian = Tensor.nanmedian
nanquantile = Tensor.nanquantile
narrow = Tensor.narrow
ne = Tensor.ne
neg = Tensor.neg
negative = Tensor.negative
nextafter = Tensor.nextafter
nonzero = Tensor.nonzero
nonzero_static = Tensor.nonzero_static
norm = Tensor.norm
not_equal = Tensor.not_equal
numel = Tensor.numel
permute = Tensor.permute
pinverse = Tensor.pinverse
positive = Tensor.positive
pow = Tensor.pow
prod = Tensor.prod
qr = Tensor.qr
quantile = Tensor.quantile
rad2deg = Tensor.rad2deg
reciprocal = Tensor.reciprocal
relu = Tensor.relu
remainder = Tensor.remainder
renorm = Tensor.renorm
reshape = Tensor.reshape
resolve_conj = Tensor.resolve_conj
resolve_neg = Tensor.resolve_neg
round = Tensor.round
rsqrt = Tensor.rsqrt
rsub = Tensor.rsub
scatter_add = Tensor.scatter_add
sgn = Tensor.sgn
sigmoid = Tensor.sigmoid
sign = Tensor.sign
signbit = Tensor.signbit
sin = Tensor.sin
sinc = Tensor.sinc
sinh = Tensor.sinh
slogdet = Tensor.slogdet
softmax = Tensor.softmax
sort = Tensor.sort
split = Tensor.split
sqrt = Tensor.sqrt
square = Tensor.square
squeeze = Tensor.squeeze
std = Tensor.std
sub = Tensor.sub
subtract = Tensor.subtract
sum = Tensor.sum
svd = Tensor.svd
t = Tensor.t
tan = Tensor.tan
tanh = Tensor.tanh
topk = Tensor.topk
transpose = Tensor.transpose
triangular_solve = Tensor.triangular_solve
tril = Tensor.tril
triu = Tensor.triu
true_divide = Tensor.true_divide
trunc = Tensor.trunc
unbind = Tensor.unbind
unflatten = Tensor.unflatten
unique = Tensor.unique
unique_consecutive = Tensor.unique_consecutive
unsqueeze = Tensor.unsqueeze
var = Tensor.var
var_mean = Tensor.var_mean
xlogy = Tensor.xlogy

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "addcdiv",
    "addcmul",
    "all",
    "allclose",
    "amax",
    "amin",
    "aminmax",
    "angle",
    "any",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argmax",
    "argmin",
    "argsort",
    "argwhere",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bincount",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "bmm",
    "broadcast_to",
    "ceil",
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "chunk",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "clone",
    "conj",
    "conj_physical",
    "copysign",
    "corrcoef",
    "cos",
    "cosh",
    "count_nonzero",
    "cov",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "deg2rad",
    "det",
    "detach",
    "diff",
    "digamma",
    "dist",
    "div",
    "divide",
    "dot",
    "eq",
    "equal",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "fix",
    "flatten",
    "flip",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "frexp",
    "gather",
    "gcd",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "heaviside",
    "histc",
    "histogram",
    "hypot",
    "i0",
    "igamma",
    "igammac",
    "index_select",
    "inverse",
    "is_floating_point",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "isreal",
    "kthvalue",
    "lcm",
    "ldexp",
    "le",
    "lerp",
    "less",
    "less_equal",
    "lgamma",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_softmax",
    "logaddexp",
    "logaddexp2",
    "logcumsumexp",
    "logdet",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logit",
    "logsumexp",
    "lt",
    "lu_solve",
    "masked_fill",
    "masked_select",
    "matrix_exp",
    "matrix_power",
    "max",
    "maximum",
    "mean",
    "median",
    "min",
    "minimum",
    "mm",
    "mode",
    "movedim",
    "msort",
    "mul",
    "multiply",
    "mvlgamma",
    "nan_to_num",
    "nanmean",
    "nanmedian",
    "nanquantile",
    "narrow",
    "ne",
    "neg",
    "negative",
    "nextafter",
    "nonzero",
    "nonzero_static",
    "norm",
    "not_equal",
    "numel",
    "permute",
    "pinverse",
    "polygamma",
    "positive",
    "pow",
    "prod",
    "qr",
    "quantile",
    "rad2deg",
    "real",
    "reciprocal",
    "relu",
    "remainder",
    "renorm",
    "reshape",
    "resolve_conj",
    "resolve_neg",
    "round",
    "rsqrt",
    "rsub",
    "scatter_add",
    "sgn",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinc",
    "sinh",
    "slogdet",
    "softmax",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "std",
    "sub",
    "subtract",
    "sum",
    "svd",
    "t",
    "tan",
    "tanh",
    "topk",
    "transpose",
    "triangular_solve",
    "tril",
    "triu",
    "true_divide",
    "trunc",
    "unbind",
    "unflatten",
    "unique",
    "unique_consecutive",
    "unsqueeze",
    "var",
    "var_mean",
    "xlogy",
]
