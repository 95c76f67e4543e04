"""Rows of products, paddings and distances."""

from __future__ import annotations

import numpy as np

from operation_rows import INF, NAN, Row, normal

_EQUATIONS = {
    "ij,jk,kl->il": (normal(2, 3), normal(3, 4), normal(4, 2)),
    "...ij,...kj->...ik": (normal(2, 1, 2, 3), normal(4, 2, 3)),
    "iij,jk": (normal(3, 3, 2), normal(2, 3)),
    "bhqd,bhkd->bhqk": (normal(1, 2, 3, 2), normal(1, 2, 3, 2)),
    "i,i->": (normal(4), normal(4)),
    "ij,kj->": (normal(2, 3), normal(4, 1)),
}

ROWS = [
    *(
        Row(f"einsum {equation}", lambda f, *x, q=equation: f.einsum(q, *x), operands, differences=number == 2)
        for number, (equation, operands) in enumerate(_EQUATIONS.items())
    ),
    Row("addmm", lambda f, x, y, z: f.addmm(x, y, z, beta=0.5, alpha=2), (normal(3), normal(2, 4), normal(4, 3))),
    Row("addmm of nothing", lambda f, x, y, z: f.addmm(x, y, z, beta=0), (normal(3), normal(2, 4), normal(4, 3)),
        ((np.array([NAN, INF, 1.0]), normal(2, 4), normal(4, 3)),)),
    Row("addbmm", lambda f, x, y, z: f.addbmm(x, y, z), (normal(2, 3), normal(2, 2, 4), normal(2, 4, 3)), sixteen=True),
    Row("kron", lambda f, x, y: f.kron(x, y), (normal(2, 3), normal(2))),
    Row("cross", lambda f, x, y: f.linalg.cross(x, y, dim=0), (normal(3, 2), normal(3, 1))),
    Row("multi_dot", lambda f, *x: f.linalg.multi_dot(x), (normal(2), normal(2, 4), normal(4, 3), normal(3, 2))),
    Row("pad reflect", lambda f, x: f.nn.functional.pad(x, (2, 1, 1, 0), "reflect"), (normal(1, 2, 3, 4),),
        sixteen=True),
    Row("pad circular", lambda f, x: f.nn.functional.pad(x, (3, -1), "circular"), (normal(2, 4),)),
    Row("pad replicate", lambda f, x: f.nn.functional.pad(x, (-1, 2), "replicate"), (normal(2, 4),)),
    Row("pad a number", lambda f, x: f.nn.functional.pad(x, (1, -1, 0, 2), value=1.5), (normal(2, 4),),
        ((np.array([[INF, NAN]]),),)),
    Row("unfold", lambda f, x: f.nn.functional.unfold(x, (2, 3), 1, 1, 2), (normal(1, 2, 5, 4),), differences=True),
    Row("fold", lambda f, x: f.nn.functional.fold(x, (5, 4), (2, 3), (2, 1), 1, 2), (normal(1, 12, 6),)),
    Row("pixel_shuffle", lambda f, x: f.nn.functional.pixel_shuffle(x, 2), (normal(1, 8, 2, 3),)),
    Row("cdist", lambda f, x, y: f.cdist(x, y), (normal(3, 2), normal(4, 2)), ((np.ones((2, 2)), np.ones((1, 2))),),
        smooth=False),
    Row("cosine_similarity", lambda f, x, y: f.nn.functional.cosine_similarity(x, y), (normal(3, 4), normal(3, 4)),
        ((np.zeros((2, 2)), normal(2, 2)),)),
    Row("bilinear", lambda f, *x: f.nn.functional.bilinear(*x),
        (normal(2, 3), normal(2, 4), normal(2, 3, 4), normal(2))),
]  # fmt: skip
