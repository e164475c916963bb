"""Where and how a model is to run: from request, facts and hardware to a plan. No torch."""
