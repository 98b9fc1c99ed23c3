toypaper mini --seed 0
