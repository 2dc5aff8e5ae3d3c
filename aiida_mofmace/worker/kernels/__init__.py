"""Arrays in, arrays out, seeded: the numerical parts that the programs are made of."""
