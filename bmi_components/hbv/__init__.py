"""The differentiable HBV family: physics, routing, parameter networks, and the DeltaHBV component."""
