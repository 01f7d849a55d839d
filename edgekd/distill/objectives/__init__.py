"""distill/objectives"""
