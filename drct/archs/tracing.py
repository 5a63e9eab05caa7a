"""Whether something records or transforms the operations that are being computed."""

import torch


def is_traced() -> bool:
    """Return whether torch.compile, torch.export or torch.jit is recording, which need operations they know."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_transformed() -> bool:
    """Return whether torch.func or forward-mode differentiation transforms operations."""
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0
