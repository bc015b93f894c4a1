"""Which layout on which pools: ``choose.choose`` decides, the other modules hold one part of the decision each."""
