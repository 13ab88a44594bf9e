"""How the routers of a model divide the work between experts: recorded, measured, switched off."""
