"""What a trained model has learned: effective depth, gates, what the memory holds, how its tables are used.

Shapes: L layers, N probed tokens or targets, M residual branches, d width, V vocabulary, S memory sites, H rows that one token reads,
D documents, G groups of tokens, R bootstrap replicates. Layers are counted from 0. Intervals are 95 %, by bootstrap over documents.
"""
