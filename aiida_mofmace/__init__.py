"""aiida-mofmace: from a flexible MOF and a gas to a fine-tuned MACE potential and an adsorption isotherm."""

__version__ = "0.1.0"
