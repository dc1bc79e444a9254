"""Random changes of training windows: geometry, deformation and intensity, the same code for 2D and 3D."""
