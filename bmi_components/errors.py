"""The exceptions that a user's mistake raises: each says what was wrong, where, and what would be right."""

__all__ = [
    "BmiComponentsError",
    "BundleError",
    "ConfigurationError",
    "DeviceError",
    "ForcingError",
    "GridError",
    "StateError",
    "TimeError",
    "UnitsError",
    "UnknownNameError",
    "ValueShapeError",
]


class BmiComponentsError(Exception):
    """Base of every error that this package raises on purpose; nothing changed when it is raised."""


class ConfigurationError(BmiComponentsError):
    """A configuration file is absent, unreadable, or holds a wrong key or value."""


class BundleError(BmiComponentsError):
    """A trained model or a foreign checkpoint is absent, damaged, unsafe or made for something else."""


class ForcingError(BmiComponentsError):
    """A forcing value is missing, NaN, infinite or physically impossible."""


class GridError(BmiComponentsError, NotImplementedError):
    """A property that a grid of this type does not have."""


class UnknownNameError(BmiComponentsError):
    """A variable, parameter or grid that the component does not have."""


class ValueShapeError(BmiComponentsError):
    """An array of the wrong length or of a type that does not convert to numbers."""


class UnitsError(BmiComponentsError):
    """Units that cannot be parsed, or that do not convert into each other."""


class TimeError(BmiComponentsError):
    """A time in the past, beyond the end, or not a number; or a call before ``initialize``."""


class StateError(BmiComponentsError):
    """A saved state that is damaged or belongs to another model, size or data type."""


class DeviceError(BmiComponentsError):
    """A device that this machine does not have."""
