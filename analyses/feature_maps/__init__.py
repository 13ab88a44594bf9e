"""What does the connector do to the features? (Figure 5 of arXiv 2409.17508)"""
