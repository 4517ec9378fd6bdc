# A command `calc` that evaluates an arithmetic expression.
cat >/usr/local/bin/calc <<'CALC'
#!/usr/bin/env python3
import ast
import operator
import sys

OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        return value(node.operand) if isinstance(node.op, ast.UAdd) else -value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](value(node.left), value(node.right))
    raise ValueError("numbers, + - * / and brackets")


print(value(ast.parse(" ".join(sys.argv[1:]), mode="eval").body))
CALC
chmod +x /usr/local/bin/calc
