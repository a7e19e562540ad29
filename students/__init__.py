"""Students: starts, training and its objectives, exported files, and what is measured of them. Alone knows torch.

Without the extra `train`, the import of any of its modules raises UsageError.
"""

from core.installation import check_train_extra
from core.openmp import set_torch_spins

check_train_extra()
set_torch_spins()  # before any of its modules loads torch
