"""Methods: what one optimizer step asks of the network that is trained."""

from dit.training.methods.base import Method
from dit.training.methods.consistency import Consistency
from dit.training.methods.fit import Fit

__all__ = ["Consistency", "Fit", "Method"]
