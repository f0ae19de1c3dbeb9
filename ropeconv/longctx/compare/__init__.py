"""Methods side by side on one text: a question, its answer, its report."""
