"""How does the router divide the work? (Figure 4c of arXiv 2409.17508)"""
