"""The methods of tensors that PyTorch also has as functions: `pullback.exp(x)` is `x.exp()`."""

from .tensor import Tensor

abs = Tensor.abs
add = Tensor.add
all = Tensor.all
amax = Tensor.amax
amin = Tensor.amin
aminmax = Tensor.aminmax
any = Tensor.any
argmax = Tensor.argmax
argmin = Tensor.argmin
argsort = Tensor.argsort
argwhere = Tensor.argwhere
bincount = Tensor.bincount
bmm = Tensor.bmm
broadcast_to = Tensor.broadcast_to
ceil = Tensor.ceil
cholesky = Tensor.cholesky
cholesky_inverse = Tensor.cholesky_inverse
cholesky_solve = Tensor.cholesky_solve
chunk = Tensor.chunk
clamp = Tensor.clamp
clip = Tensor.clip
clone = Tensor.clone
corrcoef = Tensor.corrcoef
cos = Tensor.cos
count_nonzero = Tensor.count_nonzero
cov = Tensor.cov
cummax = Tensor.cummax
cummin = Tensor.cummin
cumprod = Tensor.cumprod
cumsum = Tensor.cumsum
det = Tensor.det
detach = Tensor.detach
diff = Tensor.diff
dist = Tensor.dist
div = Tensor.div
dot = Tensor.dot
eq = Tensor.eq
erf = Tensor.erf
exp = Tensor.exp
flatten = Tensor.flatten
flip = Tensor.flip
floor = Tensor.floor
gather = Tensor.gather
ge = Tensor.ge
gt = Tensor.gt
histc = Tensor.histc
histogram = Tensor.histogram
index_select = Tensor.index_select
inverse = Tensor.inverse
is_floating_point = Tensor.is_floating_point
isfinite = Tensor.isfinite
isinf = Tensor.isinf
isnan = Tensor.isnan
kthvalue = Tensor.kthvalue
le = Tensor.le
log = Tensor.log
log_softmax = Tensor.log_softmax
logcumsumexp = Tensor.logcumsumexp
logdet = Tensor.logdet
logical_and = Tensor.logical_and
logical_not = Tensor.logical_not
logical_or = Tensor.logical_or
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
nanmean = Tensor.nanmean
nanmedian = Tensor.nanmedian
nanquantile = Tensor.nanquantile
nansum = Tensor.nansum
narrow = Tensor.narrow
ne = Tensor.ne
neg = Tensor.neg
nonzero = Tensor.nonzero
nonzero_static = Tensor.nonzero_static
norm = Tensor.norm
numel = Tensor.numel
permute = Tensor.permute
pinverse = Tensor.pinverse
pow = Tensor.pow
prod = Tensor.prod
qr = Tensor.qr
quantile = Tensor.quantile
reciprocal = Tensor.reciprocal
relu = Tensor.relu
renorm = Tensor.renorm
reshape = Tensor.reshape
round = Tensor.round
rsqrt = Tensor.rsqrt
scatter_add = Tensor.scatter_add
sigmoid = Tensor.sigmoid
sign = Tensor.sign
sin = Tensor.sin
slogdet = Tensor.slogdet
softmax = Tensor.softmax
sort = Tensor.sort
split = Tensor.split
sqrt = Tensor.sqrt
square = Tensor.square
squeeze = Tensor.squeeze
std = Tensor.std
std_mean = Tensor.std_mean
sub = Tensor.sub
sum = Tensor.sum
svd = Tensor.svd
t = Tensor.t
tanh = Tensor.tanh
topk = Tensor.topk
trace = Tensor.trace
transpose = Tensor.transpose
triangular_solve = Tensor.triangular_solve
tril = Tensor.tril
triu = Tensor.triu
trunc = Tensor.trunc
unbind = Tensor.unbind
unflatten = Tensor.unflatten
unique = Tensor.unique
unique_consecutive = Tensor.unique_consecutive
unsqueeze = Tensor.unsqueeze
var = Tensor.var
var_mean = Tensor.var_mean

__all__ = [
    "abs",
    "add",
    "all",
    "amax",
    "amin",
    "aminmax",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "argwhere",
    "bincount",
    "bmm",
    "broadcast_to",
    "ceil",
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "chunk",
    "clamp",
    "clip",
    "clone",
    "corrcoef",
    "cos",
    "count_nonzero",
    "cov",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "det",
    "detach",
    "diff",
    "dist",
    "div",
    "dot",
    "eq",
    "erf",
    "exp",
    "flatten",
    "flip",
    "floor",
    "gather",
    "ge",
    "gt",
    "histc",
    "histogram",
    "index_select",
    "inverse",
    "is_floating_point",
    "isfinite",
    "isinf",
    "isnan",
    "kthvalue",
    "le",
    "log",
    "log_softmax",
    "logcumsumexp",
    "logdet",
    "logical_and",
    "logical_not",
    "logical_or",
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
    "nanmean",
    "nanmedian",
    "nanquantile",
    "nansum",
    "narrow",
    "ne",
    "neg",
    "nonzero",
    "nonzero_static",
    "norm",
    "numel",
    "permute",
    "pinverse",
    "pow",
    "prod",
    "qr",
    "quantile",
    "reciprocal",
    "relu",
    "renorm",
    "reshape",
    "round",
    "rsqrt",
    "scatter_add",
    "sigmoid",
    "sign",
    "sin",
    "slogdet",
    "softmax",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "std",
    "std_mean",
    "sub",
    "sum",
    "svd",
    "t",
    "tanh",
    "topk",
    "trace",
    "transpose",
    "triangular_solve",
    "tril",
    "triu",
    "trunc",
    "unbind",
    "unflatten",
    "unique",
    "unique_consecutive",
    "unsqueeze",
    "var",
    "var_mean",
]
