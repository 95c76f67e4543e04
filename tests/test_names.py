"""What PyTorch's users import stands where they import it from: the same file, the same name."""

import importlib
import pkgutil
from typing import Any

import pytest
import torch

import pullback as pb

#: of GPUs, or of several processes; of an older LocalResponseNorm, whose sums leave channels out; of sparse gradients
ELSEWHERE = {"SyncBatchNorm", "CrossMapLRN2d", "SparseAdam"}


def files(package: Any) -> list[str]:
    """The names of a package's public modules."""
    return [f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_"]


def ours(name: str) -> Any:
    return importlib.import_module(name.replace("torch", "pullback", 1))


@pytest.mark.parametrize("package", [torch.nn.modules, torch.optim], ids=lambda p: p.__name__)
def test_classes_stand_in_pytorchs_files(package: Any) -> None:
    missing = []
    for name in files(package):
        theirs = vars(importlib.import_module(name))
        classes = {n for n, found in theirs.items() if isinstance(found, type) and found.__module__ == name}
        wanted = {n for n in classes if not n.startswith("_")} - ELSEWHERE
        missing += [f"{name}.{n}" for n in sorted(wanted) if not hasattr(ours(name), n)]
    assert missing == []
    named = {n for n in package.__all__ if not n.startswith("_")} - ELSEWHERE if package is torch.nn.modules else set()
    assert {n for n in named if not hasattr(pb.nn.modules, n) or not hasattr(pb.nn, n)} == set()


NAMES = {
    "nn.modules.module": "_addindent _IncompatibleKeys",
    "nn.modules.transformer": "_get_clones _get_activation_fn _generate_square_subsequent_mask",
    "nn.modules.pooling": "_MaxPoolNd _MaxUnpoolNd _AvgPoolNd _LPPoolNd _AdaptiveMaxPoolNd _AdaptiveAvgPoolNd",
    "nn.modules.padding": "_ConstantPadNd _ReflectionPadNd _ReplicationPadNd _CircularPadNd",
    "nn.modules.conv": "_ConvNd _ConvTransposeNd _LazyConvXdMixin",
    "nn.modules.batchnorm": "_NormBase _BatchNorm _LazyNormBase",
    "nn.modules.utils": "_single _pair _triple _quadruple _ntuple _reverse_repeat_tuple _list_with_default "
    "consume_prefix_in_state_dict_if_present",
    "nn.init": "_calculate_fan_in_and_fan_out _calculate_correct_fan _no_grad_uniform_ _no_grad_normal_ "
    "_no_grad_trunc_normal_ _no_grad_fill_ _no_grad_zero_ uniform normal constant eye dirac xavier_uniform "
    "xavier_normal kaiming_uniform kaiming_normal orthogonal sparse",
    "nn.utils": "clip_grad_norm weight_norm spectral_norm",
    "nn.utils.weight_norm": "weight_norm remove_weight_norm",
    "nn.utils.spectral_norm": "spectral_norm remove_spectral_norm",
    "nn.common_types": " ".join(n for n in dir(torch.nn.common_types) if n.endswith("_t")),
    "nn.attention": "SDPBackend sdpa_kernel",
    "nn.grad": "conv1d_input conv1d_weight conv2d_input conv2d_weight conv3d_input conv3d_weight",
    "optim.optimizer": "Optimizer required register_optimizer_step_pre_hook register_optimizer_step_post_hook",
    "autograd.grad_mode": "no_grad enable_grad inference_mode set_grad_enabled",
    "amp": "autocast custom_fwd custom_bwd GradScaler",
    "amp.autocast_mode": "autocast custom_fwd custom_bwd",
    "testing": "assert_close make_tensor",
    "": "set_default_tensor_type is_inference_mode_enabled strided layout",
    "cuda": "is_bf16_supported memory_reserved max_memory_reserved is_initialized memory_stats get_arch_list",
    "cuda.amp": "custom_fwd custom_bwd autocast GradScaler",
    "cpu": "is_available is_initialized device_count current_device synchronize",
    "cpu.amp": "autocast GradScaler",
    **{f"backends.{n}": "is_available" for n in ("mkldnn", "openmp", "mkl")},
    "backends.cudnn": "flags is_available",
}


@pytest.mark.parametrize("space", NAMES)
def test_other_names(space: str) -> None:
    theirs, found = (importlib.import_module(f"{lib}.{space}".rstrip(".")) for lib in ("torch", "pullback"))
    for name in NAMES[space].split():
        assert hasattr(theirs, name) and hasattr(found, name), name
        assert callable(getattr(found, name)) or not callable(getattr(theirs, name)), name


def test_layers_are_of_pytorchs_kinds() -> None:
    """What users ask of a module by its base class."""
    bases = {
        "pooling": [
            ("_MaxPoolNd", "MaxPool2d", (2,)),
            ("_AvgPoolNd", "AvgPool1d", (2,)),
            ("_LPPoolNd", "LPPool1d", (2, 2)),
        ],
        "padding": [("_ReflectionPadNd", "ReflectionPad2d", (1,)), ("_ConstantPadNd", "ZeroPad2d", (1,))],
        "linear": [("Linear", "LazyLinear", (2,)), ("Linear", "Linear", (2, 2))],
        "conv": [("_ConvNd", "LazyConv2d", (2, 1)), ("_LazyConvXdMixin", "LazyConvTranspose1d", (2, 1))],
        "batchnorm": [("_LazyNormBase", "LazyInstanceNorm1d", ()), ("_NormBase", "LazyBatchNorm2d", ())],
    }
    for file, cases in bases.items():
        for base, kind, arguments in cases:
            for lib in (pb, torch):
                assert isinstance(getattr(lib.nn, kind)(*arguments), getattr(getattr(lib.nn.modules, file), base)), kind
