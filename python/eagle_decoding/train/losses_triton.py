"""Soft cross-entropy through a frozen lm_head on a GPU: logits exist for one chunk, and one kernel reads them twice."""

import torch
import triton
import triton.language as tl

from eagle_kernels.triton.common.launch import warps_for

# 128 MB of bfloat16 logits over a draft vocabulary of 32000: large enough for full-speed products
ROWS_PER_CHUNK = 2048
BLOCK = 4096


# grid: (rows); logits [rows, vocabulary] become softmax(logits) - teacher, the gradient of the loss
@triton.jit
def soft_cross_entropy_kernel(  # type: ignore[no-untyped-def]
    logits_ptr,
    teacher_ptr,
    teacher_row_ptr,
    token_ptr,
    loss_ptr,
    logprob_ptr,
    hit_ptr,
    vocabulary,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits = logits_ptr + row * vocabulary
    teacher = teacher_ptr + tl.load(teacher_row_ptr + row).to(tl.int64) * vocabulary

    # each lane's maximum, its sum of exponentials relative to that, and its share of the teacher's expected logit
    top = tl.full((BLOCK,), -1e30, tl.float32)
    mass = tl.zeros((BLOCK,), tl.float32)
    expected = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < vocabulary
        logit = tl.load(logits + column, mask=inside, other=float("-inf")).to(tl.float32)
        prob = tl.load(teacher + column, mask=inside, other=0.0).to(tl.float32)
        new_top = tl.maximum(top, logit)
        mass = mass * tl.exp(top - new_top) + tl.exp(logit - new_top)
        top = new_top
        expected += prob * tl.where(inside, logit, 0.0)
    best = tl.max(top)
    log_normaliser = best + tl.log(tl.sum(mass * tl.exp(top - best)))

    token = tl.load(token_ptr + row)
    own = tl.load(logits + tl.maximum(token, 0)).to(tl.float32)
    own = tl.where(token >= 0, own, float("-inf"))
    tl.store(loss_ptr + row, log_normaliser - tl.sum(expected))
    tl.store(logprob_ptr + row, own - log_normaliser)
    tl.store(hit_ptr + row, own == best)
    tl.debug_barrier()  # every thread has read the own logit before one overwrites it

    for start in range(0, vocabulary, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < vocabulary
        logit = tl.load(logits + column, mask=inside, other=float("-inf")).to(tl.float32)
        prob = tl.load(teacher + column, mask=inside, other=0.0).to(tl.float32)
        gradient = tl.exp(logit - log_normaliser) - prob
        tl.store(logits + column, gradient.to(logits_ptr.dtype.element_ty), mask=inside)


class LinearSoftCrossEntropy(torch.autograd.Function):
    """loss_r = logsumexp(z_r) - sum_v p_rv z_rv with z = h W^T; d loss_r / d h_r = (softmax(z_r) - p_r) W."""

    @staticmethod
    def forward(ctx, hidden, lm_head, teacher, teacher_row, token):  # type: ignore[no-untyped-def]
        rows = hidden.shape[0]
        loss = torch.empty(rows, dtype=torch.float32, device=hidden.device)
        logprob, hit = torch.empty_like(loss), torch.empty_like(loss, dtype=torch.bool)
        grad_hidden = torch.empty_like(hidden)
        teacher = teacher.contiguous()
        for start in range(0, rows, ROWS_PER_CHUNK):
            chunk = slice(start, start + ROWS_PER_CHUNK)
            logits = hidden[chunk] @ lm_head.T
            soft_cross_entropy_kernel[(logits.shape[0],)](
                logits,
                teacher,
                teacher_row[chunk].contiguous(),
                token[chunk].contiguous(),
                loss[chunk],
                logprob[chunk],
                hit[chunk],
                logits.shape[1],
                BLOCK=BLOCK,
                num_warps=warps_for(BLOCK),
            )
            torch.mm(logits, lm_head, out=grad_hidden[chunk])
        ctx.save_for_backward(grad_hidden)
        loss, logprob = loss.to(hidden.dtype), logprob.to(hidden.dtype)
        ctx.mark_non_differentiable(logprob, hit)
        return loss, logprob, hit

    @staticmethod
    def backward(ctx, grad_loss, *_):  # type: ignore[no-untyped-def]
        (grad_hidden,) = ctx.saved_tensors
        return grad_hidden * grad_loss[:, None], None, None, None, None
