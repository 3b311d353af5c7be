"""What a network runs on, and whether it fits there: processors, accelerators and servers as data, and the verdict on a peak."""
