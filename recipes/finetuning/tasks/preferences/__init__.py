"""Preferences: answers that are wanted and answers that are not, learnt by TRL's DPO, KTO or ORPO."""
