"""What an implementation of a decoder keeps for its backward pass: ours on a GPU, ours on a CPU."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """How a decoder is built, as far as memory can see it; the defaults are ours on a GPU.

    A "tensor" here has the precision's element size, is counted per token, and waits for the backward pass.

    Attributes:
        norm_tensors: of a norm's width: input and output, or the output alone where copies are kept instead.
        norm_fp32: of a norm's width, in fp32 whatever the precision: a norm made of separate operations keeps the
            input and the normalized value.
        norm_statistics: bytes per norm and token: 4 for RMSNorm, 8 for LayerNorm.
        mlp_tensors: of ffn_hidden_size: gate, up and their product; separate operations keep SiLU(gate) and a copy of
            up too.
        expert_tensors: the same for an expert, whose product is weighted by the router.
        row_gradients: how often the gradients of rows that went to experts are there at once, each of the model's
            width: as they come back, each expert's, these joined, sorted by rank; grouped experts need no joining.
        mlp_matrices: 3 with a gate, 2 without.
        rotary: queries and keys are rotated, beside the projection they come from.
        own_tables: each rotation keeps cosines and sines of its own, as Megatron's does; ours share them.
        tiles: attention as a CPU does it: copies of queries, keys and values, and of each sequence's beginning the
            weights, which later keys have computed again.
        padded_values: latent attention's values are as wide as its queries while attention works on them.
        score_bytes: per attention score; 0 for kernels that never store the square matrix.
        score_copies: attention's outputs beside the one that the projection keeps.
        dropout: masks of one byte per element after embedding, attention and MLP.
        biases: every linear layer and norm has one.
        learned_positions: positions have a table of their own on the first stage.
        expert_tensor_parallel_size: over how many ranks an expert is divided; ours are whole.
        boundaries: of a model chunk's input and output, how many wait that no layer counts.
        logits_fp32: fp32 tensors of the vocabulary's width at the loss.
        spare_gradients: TransformerEngine's matmuls that add to the gradient by themselves hand autograd one unused
            gradient for each shape of weight, which stays.
        workspace: bytes that matmul libraries hold, whatever the layout.
    """

    norm_tensors: int = 2
    norm_fp32: int = 0
    norm_statistics: int = 4
    mlp_tensors: int = 3
    expert_tensors: int = 3
    row_gradients: int = 4
    mlp_matrices: int = 3
    rotary: bool = True
    own_tables: bool = False
    tiles: bool = False
    padded_values: bool = True
    score_bytes: int = 0
    score_copies: int = 0
    dropout: bool = False
    biases: bool = False
    learned_positions: bool = False
    expert_tensor_parallel_size: int = 1
    boundaries: int = 1
    logits_fp32: int = 1
    spare_gradients: bool = False
    workspace: int = 0


CUBLAS_WORKSPACE = 32 * MIB
"""What PyTorch gives cuBLAS on Hopper, for each thread that multiplies: forward and backward are two."""

GPU = Kernels(workspace=2 * CUBLAS_WORKSPACE)
"""Ours on a GPU."""

CPU = Kernels(tiles=True)
"""Ours on a CPU."""
