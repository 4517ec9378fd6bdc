"""Instruction texts of the Database task by prompt style."""

ACKNOWLEDGEMENT = "Ok."

# What AgentBench's instruction says (src/tasks/dbbench), in this project's words; --prompt-file takes the original.
_PAPER = """\
You are given a question about a MySQL database, or a change to make in it. You work on it with SQL that is run for you.
First write down how you understand the problem and how you mean to solve it. Then take one action a round: operate \
or answer.
To operate, write:
Action: Operation
```sql
SELECT column FROM table WHERE condition;
```
The SQL must stand in a Markdown block like this one, on one line, without comments. One statement is run a round: the \
one in the first SQL block of your reply. You get its output as MySQL gives it, and have to make sense of it yourself.
When you have done what was needed and want to hand in your answer, write:
Action: Answer
Final Answer: ["ANSWER1", "ANSWER2", ...]
Do not write this before you are sure. The answer must be accurate: it counts only if it is exactly the right one. If \
you were to modify the database, operate first; the answer may then hold anything.
A reply that follows neither of these patterns ends the task at once as a failure."""

_FIXED = """\
Answer a question about one table of a MySQL database, or change the table as you are told, by means of SQL.
In every round first write down what you think, then take one action.
To run one SQL statement:
Action: Operation
```sql
SELECT * FROM `table name` WHERE condition;
```
Only the first SQL block of a reply is run. All columns are of type TEXT. You get the rows of the result as a Python \
list, [] if there are none or if the statement changed the table, or MySQL's error message; after 800 characters it \
is cut.
To finish:
Action: Answer
Final Answer: ["ANSWER1", "ANSWER2", ...]
List exactly the values that were asked for, as they stand in the table; where there is no value, answer ["none"]. If \
the task was to change the table, change it first; the list may then hold anything.
A reply that takes neither action is not run: you are told so, and it counts. You have 15 rounds before the answer."""

_SHORT = """\
Answer the question with SQL on a MySQL table. Think, then operate:
Action: Operation
```sql
SELECT * FROM table;
```
or answer:
Action: Answer
Final Answer: ["ANSWER"]"""

INSTRUCTIONS = {"paper": _PAPER, "fixed": _FIXED, "short": _SHORT}
"""The information of AgentBench's text; the same with the evaluator's traps mended; a short one for small models, which
is read and scored as `paper`."""

UNREADABLE = (
    "Your reply could not be read. Write either `Action: Operation` and one SQL statement in a ```sql block, or "
    '`Action: Answer` and `Final Answer: ["..."]`.'
)
"""What the fixed style answers to a reply without an action."""
