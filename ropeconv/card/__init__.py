"""The model card beside what is written: front.py its fields, text.py its words, proof_section.py
the place of the proof in it.
"""
