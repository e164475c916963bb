"""Ways to generate, one request at a time. `choose` knows them by name.

`single` is the plain one, `encoder_decoder` for models that read and write apart, `jacobi` for models that
were taught to guess ahead; `answer` and `stepper` are what they share.
"""
