"""What lies in the memory of one rank at the step's peak: parameters, gradients, optimizer, activations, buffers."""

from dataclasses import dataclass
from functools import lru_cache

from parallelism.cost.kernels import CPU, GPU, Kernels
from parallelism.cost.layers import stage_layers
from parallelism.cost.waiting import stage_activations
from parallelism.layout import BYTES, Layout, Precision
from parallelism.presets import ModelShape, padded_vocab_size

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one rank of a pipeline stage at the step's peak.

    Attributes:
        parameters: in the precision of the forward pass.
        gradients: in fp32.
        optimizer: fp32 parameters where the others are bf16, and Adam's two moments.
        activations: what waits for the backward pass, and the largest of what comes and goes beside it.
        buffers: what communication keeps: under sequence parallel, whole sequences gathered from their shares.
        allowance: what matmul libraries hold beside all tensors; not part of `total`, which counts tensors.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int = 0
    allowance: int = 0

    @property
    def state(self) -> int:
        """Bytes held from step to step: parameters, gradients, optimizer."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """Bytes of all tensors at the peak of a step."""
        return self.state + self.activations + self.buffers


def stage_parameters(shape: ModelShape, *, layout: Layout, vocab_size: int, kernels: Kernels = GPU) -> list[int]:
    """Returns the parameters on one rank of each pipeline stage; norms are whole on every rank.

    The embedding is on the first stage, the last norm and the output layer on the last. With shared tables and
    more than one stage Megatron keeps a second copy of the table on the last stage, which is counted.
    """
    parts = _stage_parts(shape, layout=layout, padded=padded_vocab_size(vocab_size), kernels=kernels)
    return [shared + experts for shared, experts in parts]


def stage_memory(
    shape: ModelShape,
    *,
    layout: Layout,
    vocab_size: int,
    precision: Precision = "bf16",
    fused: bool = True,
    kernels: Kernels | None = None,
) -> list[Memory]:
    """Returns the peak memory of one rank of each pipeline stage.

    bf16 keeps 2 bytes of parameters, 4 of fp32 gradients and 12 of optimizer (fp32 parameters and two Adam
    moments); fp32 keeps 4 + 4 + 8. The distributed optimizer divides its part over the copies of a parameter: data x
    context parallel size, and for experts expert_data_parallel_size.

    Args:
        shape: The model.
        layout: Its sizes on ranks.
        vocab_size: Tokens of the tokenizer; the padded table is counted.
        precision: Of parameters and activations.
        fused: Says that a GPU's kernels do the work, which store no weights of attention.
        kernels: Another implementation than ours.
    """
    kernels = kernels or (GPU if fused else CPU)
    padded = padded_vocab_size(vocab_size)
    parts = _stage_parts(shape, layout=layout, padded=padded, kernels=kernels)
    activations = stage_activations(shape, layout=layout, padded=padded, precision=precision, kernels=kernels)
    buffers = _buffers(shape, layout=layout, padded=padded, element=BYTES[precision], kernels=kernels)
    adam = 12 if precision == "bf16" else 8
    copies, expert_copies = _copies(layout, kernels=kernels)
    return [
        Memory(
            parameters=(shared + experts) * BYTES[precision],
            gradients=(shared + experts) * 4,
            optimizer=shared * adam // copies + experts * adam // expert_copies,
            activations=kept,
            buffers=held,
            allowance=kernels.workspace,
        )
        for (shared, experts), kept, held in zip(parts, activations, buffers, strict=True)
    ]


def _buffers(shape: ModelShape, *, layout: Layout, padded: int, element: int, kernels: Kernels) -> list[int]:
    """On each stage: the gathered sequence that matmuls under sequence parallel share, gradients kept for nothing."""
    size = layout.rank_tokens * shape.hidden_size if layout.sequence_parallel else 0
    last = 0
    if kernels.spare_gradients:
        tensor = layout.tensor_model_parallel_size
        widths = shape.qkv_size, shape.attention_size, shape.ffn_hidden_size * kernels.mlp_matrices
        size += shape.hidden_size * sum(widths) // tensor
        last = shape.hidden_size * padded // tensor
    return [element * size] * (layout.pipeline_model_parallel_size - 1) + [element * (size + last)]


def _copies(layout: Layout, *, kernels: Kernels) -> tuple[int, int]:
    """Over how many ranks the optimizer's part of a parameter is divided: of a shared one, of an expert's."""
    if not layout.use_distributed_optimizer:
        return 1, 1
    parts = kernels.expert_tensor_parallel_size
    return layout.data_parallel_size * layout.context_parallel_size, max(1, layout.expert_data_parallel_size // parts)


def _stage_parts(shape: ModelShape, *, layout: Layout, padded: int, kernels: Kernels) -> list[tuple[int, int]]:
    """Parameters on one rank of each stage: those that every data parallel rank has, and experts."""
    tensor, stages = layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size
    expert = layout.expert_model_parallel_size
    dense, mixed, experts = _layer_parts(shape, tensor=tensor, expert=expert, kernels=kernels)
    table = padded // tensor * shape.hidden_size
    sizes = []
    for stage, (plain, routed) in enumerate(stage_layers(shape, layout=layout)):
        shared = plain * dense + routed * mixed
        if stage == 0:
            shared += table + (shape.max_position_embeddings * shape.hidden_size if kernels.learned_positions else 0)
        if stage == stages - 1:
            shared += shape.hidden_size * (2 if kernels.biases else 1)
            shared += table if stages > 1 or not shape.share_embeddings_and_output_weights else 0
        sizes.append((shared, routed * experts))
    return sizes


@lru_cache(maxsize=1024)
def _layer_parts(shape: ModelShape, *, tensor: int, expert: int, kernels: Kernels) -> tuple[int, int, int]:
    """Parameters of a dense layer, of a layer with experts but these, and of its experts, on one rank."""
    bias = shape.qkv_size if shape.add_qkv_bias or kernels.biases else 0
    norms = shape.layer_vector_parameters - (shape.qkv_size if shape.add_qkv_bias else 0)
    norms += 4 * shape.hidden_size if kernels.biases else 0  # of the two norms, of what writes into the residual
    size = norms + (shape.attention_matmul_parameters + bias) // tensor
    matrices = kernels.mlp_matrices
    inner = (matrices - 1) * shape.ffn_hidden_size if kernels.biases else 0
    dense = size + (shape.mlp_parameters * matrices // 3 + inner) // tensor
    if shape.experts is None:
        return dense, 0, 0
    local = shape.experts.num_moe_experts // expert
    local_size = local * shape.expert_parameters * matrices // 3
    router = shape.hidden_size * shape.experts.num_moe_experts
    mixed = size + router + shape.shared_expert_parameters * matrices // 3 // tensor
    return dense, mixed, local_size // kernels.expert_tensor_parallel_size
