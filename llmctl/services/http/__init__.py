"""What all parts of a fleet share as HTTP servers: errors, event streams, keys, request ids, bodies, metrics.

`base.build` puts them around a part's routes, `serving.serve` runs the result. Nothing here knows a model.
"""
