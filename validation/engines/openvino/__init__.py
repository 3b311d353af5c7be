"""OpenVINO's CPU plugin: what it makes of a network, its pool and its process, measured where it is installed; compared anywhere."""
