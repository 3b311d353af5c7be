"""OpenVINO's CPU plugin: what it makes of a network (``lowering``), the nodes it runs (``rows``), its pool (``runtime``), its process."""
