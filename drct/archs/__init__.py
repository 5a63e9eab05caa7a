"""Networks. Each `*_arch.py` is one; the classes in its `__all__` are registered in ARCH_REGISTRY."""
