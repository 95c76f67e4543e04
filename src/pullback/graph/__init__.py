"""The graph: nodes, element types, printer, verifier and interpreter. Imports nothing of the rest."""
