"""commit_step in Triton."""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


# grid: (batch * steps, blocks of the hidden states' width); the first block also writes the integers
@triton.jit
def commit_step_kernel(
    draft_token_ptr,
    accept_index_ptr,
    accept_length_ptr,
    bonus_token_ptr,
    hidden_ptr,
    context_ptr,
    next_token_ptr,
    next_hidden_ptr,
    next_position_ptr,
    next_context_ptr,
    num_nodes,
    steps,
    width,
    hidden_batch_stride,
    hidden_row_stride,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    b, step = place // steps, place % steps
    length = tl.load(accept_length_ptr + b)
    accepted = step <= length

    # the node's hidden state, zeros behind the path
    node = tl.load(accept_index_ptr + place, mask=accepted, other=0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = hidden_ptr + b * hidden_batch_stride + node.to(tl.int64) * hidden_row_stride + column
    hidden = tl.load(source, mask=column < tl.where(accepted, width, 0), other=0.0)
    tl.store(next_hidden_ptr + place * width + column, hidden, mask=column < width)

    if tl.program_id(1) == 0:
        # the token emitted after it: that of the next node on the path, the bonus token at its end
        following = tl.load(accept_index_ptr + place + 1, mask=step < length, other=0)
        token = tl.load(draft_token_ptr + b * num_nodes + following, mask=step < length, other=0)
        context = tl.load(context_ptr + b)
        tl.store(next_token_ptr + place, tl.where(step == length, tl.load(bonus_token_ptr + b), token))
        tl.store(next_position_ptr + place, context + tl.minimum(step, length).to(tl.int32))
        if step == 0:
            tl.store(next_context_ptr + b, context + length + 1)


def commit_step(
    draft_tokens: Tensor,
    accept_index: Tensor,
    accept_length: Tensor,
    bonus_token: Tensor,
    hidden_states: Tensor,
    context_len: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, steps = accept_index.shape
    num_nodes, width = hidden_states.shape[1:]
    next_tokens, next_positions = accept_index.new_empty(batch, steps), accept_index.new_empty(batch, steps)
    next_hidden = hidden_states.new_empty(batch, steps, width)
    next_context_len = context_len.new_empty(batch)
    if batch:
        commit_step_kernel[(batch * steps, max(1, triton.cdiv(width, BLOCK)))](
            draft_tokens.contiguous(),
            accept_index.contiguous(),
            accept_length,
            bonus_token,
            hidden_states,
            context_len,
            next_tokens,
            next_hidden,
            next_positions,
            next_context_len,
            num_nodes,
            steps,
            width,
            *hidden_states.stride()[:2],
            BLOCK=BLOCK,
        )
    return next_tokens, next_hidden, next_positions, next_context_len
