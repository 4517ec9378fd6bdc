"""Instruction texts of the Database task by prompt style."""

ACKNOWLEDGEMENT = "Ok."

# The text of THUDM/AgentBench src/tasks/dbbench (Apache-2.0), as AgentInstruct's db split shows it.
_AGENTBENCH = """\
I will ask you a question, then you should help me operate a MySQL database with SQL to answer the question.
You have to explain the problem and your solution to me and write down your thoughts.
After thinking and explaining thoroughly, every round you can choose to operate or to answer.
your operation should be like this:
Action: Operation
```sql
SELECT * FROM table WHERE condition;
```
You MUST put SQL in markdown format without any other comments. Your SQL should be in one line.
Every time you can only execute one SQL statement. I will only execute the statement in the first SQL code \
block. Every time you write a SQL, I will execute it for you and give you the output.
If you are done operating, and you want to commit your final answer, then write down:
Action: Answer
Final Answer: ["ANSWER1", "ANSWER2", ...]
DO NOT write this pattern unless you are sure about your answer. I expect an accurate and correct answer.
Your answer should be accurate. Your answer must be exactly the same as the correct answer.
If the question is about modifying the database, then after done operation, your answer field can be anything.
If your response cannot match any pattern I mentioned earlier, you will be judged as FAIL immediately.
Your input will be raw MySQL response, you have to deal with it by yourself."""

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

INSTRUCTIONS = {"paper": _AGENTBENCH, "fixed": _FIXED, "short": _SHORT}
"""AgentBench's own text; one of this project with the evaluator's traps mended; a short one for small models, which
is read and scored as `paper`."""

UNREADABLE = (
    "Your reply could not be read. Write either `Action: Operation` and one SQL statement in a ```sql block, or "
    '`Action: Answer` and `Final Answer: ["..."]`.'
)
"""What the fixed style answers to a reply without an action."""
