"""Utility against epsilon: one recipe under many budgets, mechanisms and consortia, on the same phantom patients.

points: what is asked, the plan of each, and what rows say of a gain. row: one point, a whole federation. run: all of them, in
this process or through workers. page: table and picture. reference: what `braing3n-admin plan advice` reads.
"""
