"""Stands for torch, which zipnn imports and for bytes does not use."""


class _Anything:
    def __getattr__(self, name):
        return _Anything()

    def __call__(self, *args, **kwargs):
        return _Anything()


class Tensor:
    """What isinstance asks for."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything()
