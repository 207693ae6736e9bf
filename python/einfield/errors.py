"""What einfield raises and warns of. Every message is one line: what was found, and what is expected."""


class Error(Exception):
    """Base class of all errors of einfield."""


class InvalidInput(Error, ValueError):
    """A bad configuration, argument, shape or value, or data that are not finite."""


class IoError(Error, OSError):
    """A file could not be written, or the system refused a resource such as memory."""


class NumericalError(Error, ArithmeticError):
    """A loss, gradient or parameter that is not finite."""


class BackendUnavailable(Error, RuntimeError):
    """The backend is not in this build, or no device can run it."""


class NotBuilt(BackendUnavailable):
    """The backend is not in this build."""


class CudaError(Error, RuntimeError):
    """A call of the CUDA runtime failed."""


class CublasError(Error, RuntimeError):
    """A call of cuBLAS failed."""


class CufftError(Error, RuntimeError):
    """A call of cuFFT failed."""


class EinfieldWarning(UserWarning):
    """Something that einfield did with the data, or that makes a result suspect."""
