"""individual_central: one model per dataset, trained where all its data is (a reference point)."""

from dataclasses import dataclass
from typing import ClassVar

from fcit.methods.individual import Individual
from fcit.methods.multitask import centralised
from fcit.types import Setting, Stage, Task


@dataclass(frozen=True)
class IndividualCentral(Individual):
    """The centralised counterpart of individual: for every dataset one client holds all its data and
    trains once, as many passes as multitask makes. What individual lacks to it is the price of
    federating; what multitask has over it, datasets teach one another."""

    federated: ClassVar[bool] = False

    def reshape(self, setting: Setting) -> Setting:
        alone = tuple(Stage((Task(name, (name,)),)) for name in setting.datasets)
        return centralised(setting, alone)
