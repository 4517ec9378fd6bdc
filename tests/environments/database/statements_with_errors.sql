SELECT name, team FROM Players LIMIT 2
SELECT Name, Team, COUNT(*) FROM players GROUP BY Team
SELECT 1; SELECT 2
SELECT Name -- comment
SELECT `players.Name` FROM players
SELECT Height (cm) FROM players
SELECT Height FROM players
SELECT * FROM player
SELEC * FROM players
SELECT FROM players
SELECT Name FROM players WHERE
SELECT Name FROM players WHERE Foo = 1
SELECT Name FROM players ORDER BY Foo
SELECT Name FROM players GROUP BY Foo
SELECT FOO(Name) FROM players
SELECT Name FROM players WHERE COUNT(*) > 1
SELECT (SELECT ID, Name FROM players)
SELECT Name FROM players a, players b
SELECT TOP 1 Name FROM players
SELECT Name FROM players WHERE Name ILIKE 'a%'
SELECT [Name] FROM players
SELECT Name FROM "players"
INSERT INTO players (Nope) VALUES (1)
INSERT INTO players VALUES (1, 2)
INSERT INTO nope VALUES (1, 2)
INSERT INTO players ('ID') VALUES (1)
INSERT INTO players ("ID") VALUES (1)
UPDATE players SET Team = (SELECT MAX(Team) FROM players)
UPDATE players SET Team = 'X' WHERE ID = (SELECT MAX(ID) FROM players)
UPDATE players SET Nope = 1
UPDATE players SET Height (cm) = 3
DELETE FROM players WHERE Salary = (SELECT MIN(Salary) FROM players)
DELETE * FROM players WHERE ID = 1
DELETE players WHERE ID = 1
CREATE TABLE players (a INT)
SELECT STRFTIME('%Y', Joined) FROM players
SELECT IIF(1, 2, 3)
SELECT Team AS t FROM players WHERE t = 'Reds'
SELECT Name, MAX(Salary) FROM players
SELECT * FROM players GROUP BY Team
SELECT MAX(COUNT(*)) FROM players GROUP BY Team
SELECT Name FROM players GROUP BY Team HAVING COUNT(*) > 1
SELECT AVG(Salary) AS a FROM players WHERE a > 1
SELECT Name FROM players WHERE Salary > AVG(Salary)
SELECT Name FROM players ORDER BY 5
SELECT Name, Team FROM players UNION SELECT Name FROM players
SELECT CONCAT() FROM players
SELECT SUBSTRING_INDEX('a') FROM players
SELECT Name FROM players LIMIT -1
SELECT Name FROM players LIMIT 'x'
SELECT Name FROM players WHERE Name = 'O'Neil'
SELECT Name, FROM players
SELECT Name FROM players WHERE Win % > 3
SELECT Name FROM players WHERE Win > 3
SELECT Name FROM players p WHERE players.ID = 1
SELECT q.Name FROM players p
SELECT Name FROM players JOIN teams ON players.Team = teams.Name
INSERT INTO players (ID, Name) VALUES (7, 'Gus', 'x')
INSERT INTO players VALUES ('7', 'Gus')
INSERT INTO players (ID, Height) VALUES (1, 2)
INSERT INTO players (ID Name) VALUES (1, 2)
INSERT INTO Players (ID) VALUES (1)
UPDATE players SET Team = 'X' WHERE Height > 3
UPDATE players SET Teams = 'X'
UPDATE player SET Team = 'X'
UPDATE players SET Team = 'X', WHERE ID = 1
DELETE FROM players WHERE Foo = 1
DELETE FROM Players WHERE ID = 1
DELETE players WHERE Name = 'x'
ALTER TABLE players DROP COLUMN Nope
SHOW COLUMNS FROM nope
