"""The collapse assessment: metrics of a set of texts compared with a reference, the null distribution, the verdict and its
explanation. Imports no filter.
"""
