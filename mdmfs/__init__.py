"""Medical images of hospital PACSs as files on grid worker nodes."""
