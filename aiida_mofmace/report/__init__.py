"""What a person looks at: progress while a run goes on, a summary and an HTML report of what it gave."""
