"""The methods of tensors that PyTorch also has as functions: `pullback.exp(x)` is `x.exp()`."""

from .tensor import Tensor
from .tensor.joining import (
    atleast_1d,
    atleast_2d,
    atleast_3d,
    block_diag,
    broadcast_shapes,
    broadcast_tensors,
    cartesian_prod,
    cat,
    column_stack,
    combinations,
    concat,
    concatenate,
    dstack,
    hstack,
    meshgrid,
    row_stack,
    stack,
    unravel_index,
    vstack,
)

abs = Tensor.abs
add = Tensor.add
adjoint = Tensor.adjoint
all = Tensor.all
amax = Tensor.amax
amin = Tensor.amin
aminmax = Tensor.aminmax
any = Tensor.any
argmax = Tensor.argmax
argmin = Tensor.argmin
argsort = Tensor.argsort
argwhere = Tensor.argwhere
as_strided = Tensor.as_strided
as_strided_scatter = Tensor.as_strided_scatter
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
diag = Tensor.diag
diag_embed = Tensor.diag_embed
diagflat = Tensor.diagflat
diagonal = Tensor.diagonal
diagonal_scatter = Tensor.diagonal_scatter
diff = Tensor.diff
dist = Tensor.dist
div = Tensor.div
dot = Tensor.dot
dsplit = Tensor.dsplit
eq = Tensor.eq
erf = Tensor.erf
exp = Tensor.exp
flatten = Tensor.flatten
flip = Tensor.flip
fliplr = Tensor.fliplr
flipud = Tensor.flipud
floor = Tensor.floor
gather = Tensor.gather
ge = Tensor.ge
gt = Tensor.gt
histc = Tensor.histc
histogram = Tensor.histogram
hsplit = Tensor.hsplit
index_add = Tensor.index_add
index_copy = Tensor.index_copy
index_fill = Tensor.index_fill
index_put = Tensor.index_put
index_put_ = Tensor.index_put_
index_reduce = Tensor.index_reduce
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
masked_scatter = Tensor.masked_scatter
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
moveaxis = Tensor.moveaxis
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
put = Tensor.put
qr = Tensor.qr
quantile = Tensor.quantile
ravel = Tensor.ravel
reciprocal = Tensor.reciprocal
relu = Tensor.relu
renorm = Tensor.renorm
repeat_interleave = Tensor.repeat_interleave
reshape = Tensor.reshape
roll = Tensor.roll
rot90 = Tensor.rot90
round = Tensor.round
rsqrt = Tensor.rsqrt
scatter = Tensor.scatter
scatter_add = Tensor.scatter_add
scatter_reduce = Tensor.scatter_reduce
select = Tensor.select
select_scatter = Tensor.select_scatter
sigmoid = Tensor.sigmoid
sign = Tensor.sign
sin = Tensor.sin
slice_scatter = Tensor.slice_scatter
slogdet = Tensor.slogdet
softmax = Tensor.softmax
sort = Tensor.sort
split = Tensor.split
split_with_sizes = Tensor.split_with_sizes
sqrt = Tensor.sqrt
square = Tensor.square
squeeze = Tensor.squeeze
std = Tensor.std
std_mean = Tensor.std_mean
sub = Tensor.sub
sum = Tensor.sum
svd = Tensor.svd
swapaxes = Tensor.swapaxes
swapdims = Tensor.swapdims
t = Tensor.t
take = Tensor.take
take_along_dim = Tensor.take_along_dim
tanh = Tensor.tanh
tensor_split = Tensor.tensor_split
tile = Tensor.tile
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
vsplit = Tensor.vsplit

__all__ = [
    "abs",
    "add",
    "adjoint",
    "all",
    "amax",
    "amin",
    "aminmax",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "argwhere",
    "as_strided",
    "as_strided_scatter",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "bincount",
    "block_diag",
    "bmm",
    "broadcast_shapes",
    "broadcast_tensors",
    "broadcast_to",
    "cartesian_prod",
    "cat",
    "ceil",
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "chunk",
    "clamp",
    "clip",
    "clone",
    "column_stack",
    "combinations",
    "concat",
    "concatenate",
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
    "diag",
    "diag_embed",
    "diagflat",
    "diagonal",
    "diagonal_scatter",
    "diff",
    "dist",
    "div",
    "dot",
    "dsplit",
    "dstack",
    "eq",
    "erf",
    "exp",
    "flatten",
    "flip",
    "fliplr",
    "flipud",
    "floor",
    "gather",
    "ge",
    "gt",
    "histc",
    "histogram",
    "hsplit",
    "hstack",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_put_",
    "index_reduce",
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
    "masked_scatter",
    "masked_select",
    "matrix_exp",
    "matrix_power",
    "max",
    "maximum",
    "mean",
    "median",
    "meshgrid",
    "min",
    "minimum",
    "mm",
    "mode",
    "moveaxis",
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
    "put",
    "qr",
    "quantile",
    "ravel",
    "reciprocal",
    "relu",
    "renorm",
    "repeat_interleave",
    "reshape",
    "roll",
    "rot90",
    "round",
    "row_stack",
    "rsqrt",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "select",
    "select_scatter",
    "sigmoid",
    "sign",
    "sin",
    "slice_scatter",
    "slogdet",
    "softmax",
    "sort",
    "split",
    "split_with_sizes",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "std_mean",
    "sub",
    "sum",
    "svd",
    "swapaxes",
    "swapdims",
    "t",
    "take",
    "take_along_dim",
    "tanh",
    "tensor_split",
    "tile",
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
    "unravel_index",
    "unsqueeze",
    "var",
    "var_mean",
    "vsplit",
    "vstack",
]
