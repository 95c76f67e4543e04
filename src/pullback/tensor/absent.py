"""What PyTorch's tensors have and these have not, with the reason, which is what asking for it says."""

from __future__ import annotations

_REASONS: dict[str, tuple[str, ...]] = {
    "complex numbers, and with them FFTs, are out of scope": (
        *("cdouble", "cfloat", "chalf", "complex", "complex128", "complex32", "complex64", "fft", "imag", "istft"),
        *("polar", "stft", "view_as_complex", "view_as_real"),
    ),
    "a tensor stands for a value and has no storage of its own (data_ptr() tells what shares memory)": (
        *("storage", "untyped_storage", "storage_type", "_typed_storage", "set_", "is_set_to", "const_data_ptr"),
        *("share_memory_", "_version", "_base", "_is_view"),
    ),
    "the shape of a tensor does not change, and results lie by rows": (
        *("resize", "resize_", "resize_as", "resize_as_", "as_strided_", "new_empty_strided"),
    ),
    "there is one device, the CPU: .to(device) with pullback.device('cpu') runs everywhere": (
        *("cuda", "ipu", "xpu", "mtia", "pin_memory", "record_stream", "to_mkldnn", "__cuda_array_interface__"),
    ),
    "there is one layout: sparse, nested and quantized tensors are not there": (
        *("ccol_indices", "coalesce", "col_indices", "crow_indices", "dense_dim", "indices", "is_coalesced"),
        *("resize_as_sparse_", "row_indices", "smm", "sparse_dim", "sparse_mask", "sparse_resize_", "sspaddmm"),
        *("sparse_resize_and_clear_", "to_dense", "to_sparse", "to_sparse_bsc", "to_sparse_bsr", "to_sparse_coo"),
        *("to_sparse_csc", "to_sparse_csr", "values", "is_sparse_csr", "to_padded_tensor", "dequantize", "int_repr"),
        *("q_per_channel_axis", "q_per_channel_scales", "q_per_channel_zero_points", "q_scale", "q_zero_point"),
        *("qscheme",),
    ),
    "PyTorch has removed it too; linalg.eig, linalg.eigh, linalg.lstsq and linalg.solve are in its place": (
        *("eig", "lstsq", "solve", "symeig", "reinforce", "volatile"),
    ),
    "it is of how PyTorch works inside": (
        *("__torch_function__", "__torch_dispatch__", "as_subclass", "module_load", "output_nr", "name", "grad_dtype"),
        *(
            "index",
            "hash_tensor",
            "slice_inverse",
            "narrow_copy",
            "_backward_hooks",
            "_post_accumulate_grad_hooks",
            "_grad_fn",
        ),
    ),
}
#: the reason for each name
ABSENT = {name: reason for reason, names in _REASONS.items() for name in names}
COMPLEX = frozenset(next(iter(_REASONS.values())))


__all__ = ["ABSENT", "COMPLEX"]
