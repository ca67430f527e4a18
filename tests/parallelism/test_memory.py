"""What memory.py adds up, in cases that can be counted by hand; test_cost.py holds it to measured jobs."""

from dataclasses import replace

from parallelism.cost.activations import layer_activations
from parallelism.cost.kernels import CPU, CUBLAS_WORKSPACE, GPU
from parallelism.cost.layers import chunk_layers, stage_layers
from parallelism.cost.memory import stage_memory, stage_parameters
from parallelism.layout import Layout
from parallelism.presets import preset

SHAPE, VOCAB = preset("gravity_16b_a3b"), 151_552
LAYOUT = Layout(
    world_size=64,
    global_batch_size=64,
    seq_length=4096,
    pipeline_model_parallel_size=2,
    expert_model_parallel_size=8,
)


def test_experts_are_divided_over_their_ranks_and_their_copies() -> None:
    experts = 64 * SHAPE.expert_parameters * 14  # of the last stage, all in all
    whole, divided = (
        stage_memory(SHAPE, layout=replace(LAYOUT, expert_model_parallel_size=size), vocab_size=VOCAB)[-1]
        for size in (1, 8)
    )
    assert whole.parameters - divided.parameters == 2 * experts * 7 // 8
    assert whole.gradients - divided.gradients == 4 * experts * 7 // 8
    assert abs(whole.optimizer - divided.optimizer) <= 2  # 32 copies of all, or 4 copies of an eighth


def test_ranks_of_a_stage_together_hold_its_layers() -> None:
    whole, divided = (
        stage_parameters(SHAPE, layout=replace(LAYOUT, expert_model_parallel_size=size), vocab_size=VOCAB)
        for size in (1, 8)
    )
    experts = [64 * SHAPE.expert_parameters * layers for layers in (13, 14)]
    assert [one - routed for one, routed in zip(whole, experts, strict=True)] == [
        one - routed // 8 for one, routed in zip(divided, experts, strict=True)
    ]
    assert sum(whole) == SHAPE.parameters(VOCAB)


def test_the_dense_layers_come_first() -> None:
    layout = replace(LAYOUT, virtual_pipeline_model_parallel_size=2)
    assert chunk_layers(SHAPE, layout=layout) == (((1, 6), (0, 7)), ((0, 7), (0, 7)))
    assert stage_layers(SHAPE, layout=layout) == ((1, 13), (0, 14))
    assert sum(many for _, many in stage_layers(SHAPE, layout=layout)) == SHAPE.num_moe_layers


def test_recomputation_keeps_less_and_the_less_the_more_is_computed_again() -> None:
    peaks = [
        stage_memory(SHAPE, layout=replace(LAYOUT, recompute_granularity=name), vocab_size=VOCAB)[0].activations
        for name in (None, "selective", "full")
    ]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > 1.5 * peaks[1] > 2 * peaks[2]


def test_gathered_sequences_are_a_buffer_of_their_own() -> None:
    layout = replace(LAYOUT, tensor_model_parallel_size=2, sequence_parallel=True)
    for layout_, size in ((LAYOUT, 0), (layout, 2 * 4096 * SHAPE.hidden_size)):
        memories = stage_memory(SHAPE, layout=layout_, vocab_size=VOCAB)
        assert [memory.buffers for memory in memories] == [size, size]
        assert all(memory.total == memory.state + memory.activations + size for memory in memories)


def test_the_allowance_is_beside_the_tensors() -> None:
    gpu, cpu = (stage_memory(SHAPE, layout=LAYOUT, vocab_size=VOCAB, fused=fused)[0] for fused in (True, False))
    assert (gpu.allowance, cpu.allowance) == (2 * CUBLAS_WORKSPACE, 0)
    other = stage_memory(SHAPE, layout=LAYOUT, vocab_size=VOCAB, kernels=replace(GPU, workspace=0))[0]
    assert other.total == gpu.total


def test_another_implementation_keeps_other_tensors() -> None:
    tokens, dense = LAYOUT.rank_tokens, preset("dense_7b")
    kept = layer_activations(dense, layout=LAYOUT)
    masks = layer_activations(dense, layout=LAYOUT, kernels=replace(GPU, dropout=True))
    assert masks - kept == 2 * dense.hidden_size * tokens
    square = layer_activations(dense, layout=LAYOUT, kernels=replace(GPU, score_bytes=5))
    assert square - kept == dense.num_attention_heads * tokens * (5 * LAYOUT.seq_length - 4)
    assert layer_activations(dense, layout=LAYOUT, fused=False) == layer_activations(dense, layout=LAYOUT, kernels=CPU)


def test_biases_and_learned_positions_are_parameters() -> None:
    dense = preset("dense_7b")
    layout = replace(LAYOUT, pipeline_model_parallel_size=1, expert_model_parallel_size=1)
    plain, whole = (
        stage_parameters(dense, layout=layout, vocab_size=VOCAB, kernels=kernels)[0]
        for kernels in (GPU, replace(GPU, biases=True, learned_positions=True))
    )
    biases = dense.qkv_size + 2 * dense.ffn_hidden_size + 4 * dense.hidden_size
    positions = dense.max_position_embeddings * dense.hidden_size
    assert whole - plain == dense.num_layers * biases + dense.hidden_size + positions
