SELECT * FROM players
SELECT `Name` FROM `players` WHERE `Team` = "Reds"
SELECT Name FROM players WHERE Team = 'REDS' ORDER BY Name
SELECT Name FROM players LIMIT 1, 2
SELECT Name FROM players LIMIT 2 OFFSET 1
SELECT Name FROM players ORDER BY `Height (cm)` DESC LIMIT 1
SELECT Name FROM players ORDER BY CAST(`Height (cm)` AS UNSIGNED) DESC LIMIT 3
SELECT CAST(`Height (cm)` AS UNSIGNED) FROM players
SELECT CAST(`Height (cm)` AS SIGNED) FROM players
SELECT CAST(`Height (cm)` AS DECIMAL(10,2)) FROM players
SELECT CAST(Salary AS DECIMAL) FROM players
SELECT SUM(CAST(`Height (cm)` AS DECIMAL(10,2))) FROM players
SELECT AVG(CAST(`Height (cm)` AS SIGNED)) FROM players
SELECT SUM(CAST(`Height (cm)` AS SIGNED)) FROM players
SELECT MAX(CAST(REPLACE(Salary, ',', '') AS SIGNED)) FROM players
SELECT SUM(REPLACE(Salary, ',', '')) FROM players
SELECT AVG(REPLACE(`Win %`, '%', '')) FROM players
SELECT Name FROM players WHERE REPLACE(Salary, ',', '') > 1000
SELECT Name FROM players WHERE CAST(REPLACE(Salary, ',', '') AS UNSIGNED) > 1000
SELECT Name FROM players WHERE Salary > 1000
SELECT Name FROM players WHERE Salary + 0 > 1000
SELECT Name FROM players WHERE `Win %` > 40
SELECT Name FROM players WHERE `Win %` > '40'
SELECT Name, IF(`Height (cm)` > 180, 'tall', 'short') AS s FROM players
SELECT IFNULL(NULL, Name) FROM players WHERE ID = 1
SELECT COALESCE(NULL, Team), NULLIF(Notes, '') FROM players
SELECT CONCAT(Name, ' (', Team, ')') FROM players
SELECT CONCAT_WS('-', ID, Team) FROM players
SELECT SUBSTRING_INDEX(Name, ' ', 1) FROM players
SELECT SUBSTRING_INDEX(Name, ' ', -1) FROM players
SELECT SUBSTRING(Name, 1, 3), SUBSTR(Name, 2), LEFT(Name, 2), RIGHT(Name, 2), MID(Name, 2, 2) FROM players
SELECT STR_TO_DATE(Joined, '%Y-%m-%d') FROM players WHERE ID = 1
SELECT DATE_FORMAT(Joined, '%Y') FROM players WHERE ID < 5
SELECT DATE_FORMAT(Joined, '%M %d, %Y') FROM players WHERE ID < 5
SELECT YEAR(Joined), MONTH(Joined), DAY(Joined) FROM players WHERE ID < 5
SELECT Name FROM players WHERE YEAR(Joined) = 2020
SELECT Name FROM players WHERE Joined LIKE '2020%'
SELECT Name FROM players WHERE Joined BETWEEN '2019-01-01' AND '2020-12-31'
SELECT Name FROM players WHERE Joined > '2020-01-01'
SELECT Name FROM players WHERE Name REGEXP '^[A-C]'
SELECT Name FROM players WHERE Name RLIKE 'stone'
SELECT Name FROM players WHERE Name NOT REGEXP 'o'
SELECT Name REGEXP 'o' FROM players
SELECT Name FROM players WHERE Name LIKE '%STONE%'
SELECT Name FROM players WHERE Name = 'Eve Stone'
SELECT Name FROM players WHERE TRIM(Name) = 'eve stone'
SELECT Name FROM players WHERE LOWER(Name) LIKE 'dée%'
SELECT UPPER(Name), LOWER(Team), LENGTH(Name), CHAR_LENGTH(Name) FROM players
SELECT 7 / 2, 7 DIV 2, 7 % 2, MOD(7, 2), 7 MOD 2
SELECT `Height (cm)` / 2 FROM players
SELECT `Height (cm)` * 2, `Height (cm)` + 1, `Height (cm)` - 1 FROM players
SELECT ROUND(`Height (cm)` / 3, 2), ROUND(`Height (cm)`), FLOOR(`Height (cm)`), CEIL(`Height (cm)`) FROM players
SELECT ROUND(AVG(`Height (cm)`), 2) FROM players
SELECT AVG(`Height (cm)`), MIN(`Height (cm)`), MAX(`Height (cm)`), SUM(`Height (cm)`) FROM players
SELECT COUNT(*), COUNT(Notes), COUNT(DISTINCT Team) FROM players
SELECT COUNT(DISTINCT Team, Notes) FROM players
SHOW TABLES
DESCRIBE players
DESC players
SHOW COLUMNS FROM players
SELECT Team, COUNT(*) FROM players GROUP BY Team
SELECT Team, COUNT(*) AS n FROM players GROUP BY Team ORDER BY n DESC, Team
SELECT Team, COUNT(*) AS n FROM players GROUP BY Team HAVING n > 1
SELECT Team, COUNT(*) FROM players GROUP BY Team HAVING COUNT(*) > 1
SELECT DISTINCT Team FROM players
SELECT Team FROM players UNION ALL SELECT Team FROM players
(SELECT Name FROM players WHERE ID = 1) UNION (SELECT Name FROM players WHERE ID = 2)
WITH t AS (SELECT Name, Salary FROM players) SELECT Name FROM t WHERE Salary > 900
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3) SELECT x FROM n
SELECT Name, ROW_NUMBER() OVER (ORDER BY `Height (cm)` + 0 DESC) AS r FROM players
SELECT Name, RANK() OVER (PARTITION BY Team ORDER BY ID) FROM players
SELECT Name FROM players WHERE ID = (SELECT MAX(ID) FROM players)
SELECT Name FROM players WHERE ID IN (SELECT ID FROM players WHERE Team = 'Blues')
SELECT a.Name, b.Name FROM players a JOIN players b ON a.Team = b.Team WHERE a.ID < b.ID
SELECT p.Name FROM players AS p LEFT JOIN players AS q ON p.ID = q.ID + 1 WHERE q.ID IS NULL
SELECT Name FROM players WHERE Notes IS NULL
SELECT Name FROM players WHERE Notes = 'None'
SELECT Name FROM players WHERE Notes = ''
SELECT Name FROM players WHERE Team != 'Reds'
SELECT Name FROM players WHERE NOT Team = 'Reds'
SELECT Name FROM players WHERE Team IN ('reds', "blues")
SELECT Name FROM players WHERE ID IN (1, 2, 3)
SELECT Name FROM players WHERE ID IN ('1', 2)
SELECT Name FROM players WHERE ID = '1'
SELECT Name FROM players WHERE ID BETWEEN 2 AND 4
SELECT Name FROM players WHERE ID % 2 = 0
SELECT Name FROM players WHERE ID MOD 2 = 0
SELECT Name FROM players WHERE LENGTH(Name) > 5
SELECT Name FROM players WHERE ID = 1;
SELECT Name FROM players -- comment
SELECT Name FROM players # comment
SELECT /* hi */ Name FROM players LIMIT 1
SELECT CASE WHEN Team = 'Reds' THEN 'r' ELSE 'o' END FROM players
SELECT SUM(CASE WHEN Team = 'Reds' THEN 1 ELSE 0 END) FROM players
SELECT SUM(IF(Team = 'Reds', 1, 0)) FROM players
SELECT COUNT(IF(Team = 'Reds', 1, NULL)) FROM players
SELECT SUM(Team = 'Reds') FROM players
SELECT SUM(1) FROM players
SELECT SUM(ID) / COUNT(*) FROM players
SELECT COUNT(*) / 4 FROM players
SELECT COUNT(*) * 100 / (SELECT COUNT(*) FROM players) FROM players WHERE Team = 'Reds'
SELECT MAX(ID) - MIN(ID) FROM players
SELECT ABS(MIN(Salary + 0)) FROM players
SELECT GROUP_CONCAT(Name) FROM players
SELECT GROUP_CONCAT(Name ORDER BY Name DESC SEPARATOR '; ') FROM players
SELECT GROUP_CONCAT(DISTINCT Team ORDER BY Team) FROM players
SELECT GREATEST(1, 2), LEAST(3, 2), SIGN(-2), POWER(2, 3), SQRT(16)
SELECT DATEDIFF('2020-03-01', '2020-02-28'), TIMESTAMPDIFF(YEAR, '2018-07-01', '2020-06-30')
SELECT DATE_ADD(Joined, INTERVAL 1 YEAR), DATE_SUB(Joined, INTERVAL 1 MONTH) FROM players WHERE ID = 6
SELECT Name FROM players WHERE Joined >= DATE_SUB('2020-12-31', INTERVAL 1 YEAR)
SELECT INSTR(Name, 'o'), LOCATE('o', Name), POSITION('o' IN Name), FIND_IN_SET('x', Notes) FROM players
SELECT LPAD(ID, 3, '0'), RPAD(ID, 3, '.'), REPEAT('ab', 2), REVERSE(Name), SPACE(2) FROM players WHERE ID = 1
SELECT FORMAT(1234567.891, 2), TRUNCATE(12.345, 2)
SELECT Name FROM players WHERE Team LIKE 'R_ds'
SELECT Name FROM players WHERE Notes LIKE 'a\_b'
SELECT TRUE, FALSE, NULL, 1 = 1, 2 > 3
SELECT 5 IS NOT NULL, NOT 1, !1
SELECT 'a' 'b'
SELECT 'it''s', "it's", 'it\'s'
SELECT 1 <=> NULL, NULL <=> NULL
SELECT 1 XOR 1
SELECT Name AS `full name` FROM players WHERE ID = 1
SELECT Name 'n' FROM players WHERE ID = 1
SELECT Name AS "n" FROM players WHERE ID = 1
SELECT players.Name FROM players WHERE players.ID = 1
SELECT `players`.`Name` FROM `players` WHERE `players`.`ID` = 1
SELECT Name FROM players WHERE Name = Team
SELECT "Name" FROM players
SELECT Name FROM players WHERE Joined = (SELECT MIN(Joined) FROM players WHERE Joined <> '')
SELECT MIN(Joined), MAX(Name) FROM players
SELECT Name, Salary FROM players ORDER BY Salary
SELECT Name, Salary FROM players ORDER BY Salary + 0 DESC
SELECT Name FROM players ORDER BY ABS(Salary) LIMIT 2
SELECT Name FROM players ORDER BY 1 DESC
SELECT Name FROM players ORDER BY Team, Name DESC
SELECT Team, AVG(Salary) FROM players GROUP BY Team ORDER BY AVG(Salary) DESC
SELECT Team, SUM(Salary) AS total FROM players GROUP BY Team ORDER BY total
SELECT COUNT(*) FROM players WHERE Team = 'Reds' AND Salary >= 1000 OR ID = 6
SELECT COUNT(*) FROM players WHERE `Height (cm)` >= 180.5
SELECT Name FROM players WHERE `Height (cm)` = 190.0
SELECT Name FROM players WHERE `Height (cm)` = '190.0'
SELECT Name FROM players WHERE ID = 'abc' OR 0
SELECT Name FROM players WHERE ID
SELECT Name FROM players WHERE Name = 0
INSERT INTO players VALUES ('7', 'Gus', 'Reds', '180', '1', '2022-01-01', '1%', NULL)
INSERT INTO players (ID, Name) VALUES (7, 'Gus'), (8, 'Hal')
INSERT INTO players SET ID = 7, Name = 'Gus', Salary = 2.50
INSERT IGNORE INTO players (ID) VALUES (9)
INSERT players (ID) VALUES (9)
INSERT INTO players (ID) VALUE (9)
INSERT INTO players (ID, Name) SELECT ID + 10, Name FROM players WHERE ID < 3
INSERT INTO players (ID, Joined) VALUES (9, DATE('2020-01-01'))
INSERT INTO players (ID, Notes) VALUES (9, "say \"hi\"\n")
INSERT INTO players (ID, Notes) VALUES (9, DEFAULT)
INSERT INTO players () VALUES ()
REPLACE INTO players (ID, Name) VALUES (1, 'Zed')
INSERT INTO players (ID) VALUES (1) ON DUPLICATE KEY UPDATE Name = 'x'
UPDATE players SET Team = 'Golds' WHERE Team = 'reds'
UPDATE players SET Salary = Salary * 2
UPDATE players SET Salary = Salary + 100 WHERE ID = 2
UPDATE players SET Salary = REPLACE(Salary, ',', '')
UPDATE players SET Salary = ROUND(Salary * 1.1, 2) WHERE ID IN (2, 4)
UPDATE players SET Salary = CAST(Salary AS DECIMAL(10, 2)) WHERE ID = 2
UPDATE players SET Salary = CAST(Salary AS SIGNED) + 1 WHERE ID = 5
UPDATE players p SET p.Team = 'X' WHERE p.ID = 1
UPDATE players SET players.Team = 'X' WHERE players.ID = 1
UPDATE players SET Team = 'X' ORDER BY ID DESC LIMIT 1
UPDATE players SET Team = 'X' LIMIT 2
UPDATE players SET Team = (SELECT m FROM (SELECT MAX(Team) AS m FROM players) t)
UPDATE players SET Team = 'X' WHERE ID IN (SELECT ID FROM (SELECT ID FROM players WHERE ID > 4) t)
UPDATE players SET Notes = NULL WHERE Notes = ''
UPDATE players SET Name = CONCAT(Name, '!'), Notes = UPPER(Notes)
UPDATE players SET ID = ID + 1
UPDATE players SET `Win %` = '1%' WHERE `Win %` < 10
UPDATE players SET Joined = '2000-01-01' WHERE Joined IS NULL OR Joined = ''
UPDATE players SET Joined = DATE_ADD(Joined, INTERVAL 1 DAY) WHERE ID = 6
UPDATE players SET Team = IF(ID > 3, 'A', 'B')
UPDATE players SET Team = CASE WHEN ID > 3 THEN 'A' ELSE Team END
UPDATE players SET Notes = LEFT(Name, 3)
UPDATE players SET Salary = 1000000 WHERE Name = 'ada lopez'
UPDATE IGNORE players SET Team = 'q' WHERE ID = 1
DELETE FROM players WHERE Team = 'REDS'
DELETE FROM players WHERE Salary < 1000
DELETE FROM players WHERE ID = 1 OR Name LIKE 'b%'
DELETE FROM players ORDER BY ID DESC LIMIT 2
DELETE FROM players LIMIT 1
DELETE FROM players WHERE ID NOT IN (SELECT m FROM (SELECT MIN(ID) m FROM players GROUP BY Team) t)
DELETE p FROM players p WHERE p.ID = 1
DELETE players FROM players WHERE ID = 1
DELETE p1 FROM players p1 INNER JOIN players p2 WHERE p1.ID > p2.ID AND p1.Team = p2.Team
DELETE FROM players
TRUNCATE TABLE players
TRUNCATE players
ALTER TABLE players ADD COLUMN Age INT
ALTER TABLE players ADD COLUMN Age INT DEFAULT 3 ; SELECT Age FROM players LIMIT 1 ; UPDATE players SET Age = ID * 2 ; SELECT Age FROM players
ALTER TABLE players DROP COLUMN Notes
ALTER TABLE players RENAME COLUMN Notes TO Remarks
ALTER TABLE players RENAME TO people
DROP TABLE players
DROP TABLE IF EXISTS nope
CREATE TABLE y AS SELECT * FROM players ; SELECT COUNT(*) FROM y
CREATE VIEW v AS SELECT Name FROM players ; SELECT * FROM v LIMIT 1
CREATE INDEX i ON players (ID)
START TRANSACTION ; DELETE FROM players ; ROLLBACK
BEGIN ; COMMIT
SET SQL_SAFE_UPDATES = 0 ; DELETE FROM players
INSERT INTO players (ID, Name) VALUES (7, 'Gus') ; SELECT LAST_INSERT_ID()
SELECT Name FROM players WHERE Name = 'Dee O\'Neil'
SELECT Name FROM players WHERE Name LIKE '%o''n%'
SELECT Name FROM players WHERE ID = ANY (SELECT ID FROM players WHERE ID < 3)
SELECT STD(ID), VARIANCE(ID) FROM players
SELECT CAST('2020-01-01' AS DATE), DATE('2020-01-02 10:00:00')
SELECT CAST(Salary AS FLOAT) FROM players WHERE ID = 2
SELECT CAST(Salary AS DOUBLE) FROM players WHERE ID = 2
SELECT Name || Team FROM players
SELECT Name FROM players WHERE Team = 'Reds' COLLATE utf8mb4_bin
SELECT Name FROM players WHERE BINARY Team = 'Reds'
SELECT DISTINCT(Team), ID FROM players WHERE ID < 3
SELECT COUNT(*) AS count FROM players
SELECT Name FROM players WHERE ID=1 AND 1=1
SELECT AVG(DISTINCT ID) FROM players
SELECT MAX(CHAR_LENGTH(Name)) FROM players
SELECT TIMESTAMPDIFF(DAY, '2020-01-01', '2020-01-31'), DAYNAME('2020-01-01'), MONTHNAME('2020-01-01'), WEEKDAY('2020-01-01'), DAYOFWEEK('2020-01-01'), QUARTER('2020-05-01')
SELECT EXTRACT(YEAR FROM Joined) FROM players WHERE ID = 1
SELECT t.Team, t.n FROM (SELECT Team, COUNT(*) AS n FROM players GROUP BY Team) AS t WHERE t.n > 1 ORDER BY t.n DESC, t.Team
SELECT AVG(n) FROM (SELECT COUNT(*) AS n FROM players GROUP BY Team) AS t
SELECT AVG(t.s) FROM (SELECT SUM(Salary) AS s FROM players GROUP BY Team) t
SELECT MAX(n), SUM(n), SUM(n) / 2 FROM (SELECT COUNT(*) n FROM players GROUP BY Team) t
SELECT ROUND(AVG(CAST(`Height (cm)` AS DECIMAL(10,2))), 1) FROM players WHERE `Height (cm)` <> ''
SELECT ROUND(COUNT(*) * 100 / 6, 2) FROM players WHERE Team = 'Reds'
SELECT ROUND(COUNT(*) * 100.0 / (SELECT COUNT(*) FROM players), 2) FROM players WHERE Team = 'Reds'
SELECT CONCAT(ROUND(COUNT(*) * 100 / 4, 2), '%') FROM players WHERE Team = 'Reds'
SELECT CONCAT(COUNT(*) / 4, '') FROM players
SELECT SUM(CASE WHEN Team = 'Reds' THEN Salary ELSE 0 END) FROM players
SELECT SUM(CASE WHEN Team = 'Reds' THEN 1.5 ELSE 0 END) FROM players
SELECT AVG(CASE WHEN Team = 'Reds' THEN 1 ELSE 0 END) FROM players
SELECT AVG(LENGTH(Name)) FROM players
SELECT MAX(LENGTH(Name)), MIN(CHAR_LENGTH(Team)) FROM players
SELECT Name FROM players WHERE LENGTH(Name) = (SELECT MAX(LENGTH(Name)) FROM players)
SELECT Name FROM players WHERE CAST(ID AS UNSIGNED) = (SELECT MAX(CAST(ID AS UNSIGNED)) FROM players)
SELECT COUNT(DISTINCT LOWER(Team)) FROM players
SELECT DISTINCT UPPER(Team) FROM players
SELECT LOWER(Team) AS t, COUNT(*) FROM players GROUP BY LOWER(Team) ORDER BY t
SELECT LOWER(Team) AS t, COUNT(*) FROM players GROUP BY t ORDER BY 2 DESC, 1
SELECT SUBSTRING(Joined, 1, 4) AS y, COUNT(*) FROM players GROUP BY y ORDER BY y
SELECT SUBSTRING(Joined, 1, 4) AS y, COUNT(*) FROM players WHERE Joined <> '' GROUP BY SUBSTRING(Joined, 1, 4) ORDER BY COUNT(*) DESC, y LIMIT 1
SELECT YEAR(Joined) AS y, COUNT(*) FROM players GROUP BY YEAR(Joined) ORDER BY y
SELECT Team FROM players GROUP BY Team ORDER BY COUNT(*) DESC, Team LIMIT 1
SELECT Team FROM players GROUP BY Team HAVING SUM(Salary) > 100 ORDER BY Team
SELECT Team, COUNT(*) FROM players WHERE Salary > 0 GROUP BY Team HAVING COUNT(*) >= 1 AND MAX(ID) > 3
SELECT COUNT(*) FROM (SELECT DISTINCT Team FROM players) AS t
SELECT COUNT(*) FROM players WHERE Team = 'Reds' OR Team = 'Blues'
SELECT COUNT(*) FROM players WHERE NOT (Team = 'Reds' AND ID > 1)
SELECT ID, Name FROM players WHERE Salary REGEXP '^[0-9]+$'
SELECT Name FROM players WHERE Salary LIKE '%,%'
SELECT Name FROM players WHERE Notes LIKE '%\_%'
SELECT CAST(REPLACE(`Win %`, '%', '') AS DECIMAL(5,1)) FROM players
SELECT Name FROM players ORDER BY CAST(REPLACE(`Win %`, '%', '') AS DECIMAL(5,1)) DESC LIMIT 1
SELECT Name FROM players ORDER BY REPLACE(Salary, ',', '') + 0 DESC
SELECT Name FROM players ORDER BY -Salary
SELECT Name FROM players ORDER BY LENGTH(Name), Name
SELECT Name FROM players ORDER BY LOWER(Name) DESC
SELECT Name FROM players ORDER BY FIELD(Team, 'Greens', 'Blues', 'Reds'), ID
SELECT SUM(REPLACE(Salary, ',', '')) / COUNT(*) FROM players
SELECT SUM(REPLACE(REPLACE(Salary, ',', ''), '$', '') + 0) AS total FROM players
SELECT MAX(REPLACE(Salary, ',', '') * 1) - MIN(REPLACE(Salary, ',', '') * 1) FROM players
SELECT 10 / 4, 10 / 4.0, 10.0 / 4, 1 / 3, 2 * 3.5, 1 + 1.25, 5 - 2.50, 7 % 3, 7.5 % 2, -7 % 3, -7 DIV 2
SELECT 1 / 0, 5 % 0, 5 DIV 0
SELECT '10' + '5', '3 apples' * 2, 'abc' + 1, '1.5' + 1
SELECT '10' = 10, '10' = 10.0, 'abc' = 0, '10' > '9', 10 > '9', NULL = NULL
SELECT 'a' = 'A', 'a' = 'a ', 'é' = 'e', 'a' < 'B'
SELECT ROUND(2.5), ROUND(-2.5), ROUND(1234.567, -2), ROUND(1.005, 2), ROUND('2.5'), ROUND('3.5')
SELECT CEIL(1.2), FLOOR(-1.2), CEILING('1.2'), ABS(-3.50), ABS('-3.5'), SIGN('-2')
SELECT IF(1 > 0, 'yes', 'no'), IF(NULL, 1, 2), IFNULL(NULL, 1.50), COALESCE(NULL, NULL, 'x'), NULLIF(1, 1)
SELECT IF(1, 1, 2.5), IF(1, 2, 'x'), CASE 1 WHEN 1 THEN 1.50 ELSE 2 END
SELECT GREATEST('10', '9'), GREATEST(10, '9'), LEAST('a', 'B'), GREATEST(1, 2.5)
SELECT CONCAT('a', 1, 2.50, NULL), CONCAT('x', 1.0), CONCAT(1 / 4), CONCAT(3 * 1.0)
SELECT UPPER('straße'), REVERSE('añb'), LPAD('5', 3, '0'), TRIM('  a  '), TRIM(LEADING '0' FROM '007'), TRIM(BOTH 'x' FROM 'xxax')
SELECT SUBSTRING_INDEX('a-b-c', '-', 2), SUBSTRING_INDEX('a-b-c', '-', -2), SUBSTRING_INDEX('abc', '-', 1)
SELECT DATE_FORMAT('2020-02-09', '%W %e %b %y %c %D'), DATE_FORMAT('bad', '%Y'), DATE_FORMAT('2020-02-09 15:04:05', '%H:%i:%s %h %p')
SELECT STR_TO_DATE('March 5, 2019', '%M %e, %Y'), STR_TO_DATE('05/03/19', '%d/%m/%y'), STR_TO_DATE('x', '%Y'), STR_TO_DATE('2019-01-02 10:11', '%Y-%m-%d %H:%i')
SELECT YEAR('2019'), YEAR('20190304'), YEAR('19-3-4'), YEAR('2019/03/04'), YEAR('March 2019'), MONTH('2019-13-01'), DAY('2019-02-30')
SELECT DATEDIFF('2020-01-01', '2019-12-25'), DATEDIFF('x', '2020-01-01'), TIMESTAMPDIFF(MONTH, '2020-01-31', '2020-03-01')
SELECT DATE_ADD('2020-01-31', INTERVAL 1 MONTH), DATE_SUB('2020-03-01', INTERVAL 1 DAY), DATE_ADD('2020-01-01', INTERVAL 2 HOUR), '2020-01-01' + INTERVAL 1 DAY
SELECT DATE('2020-01-01') + INTERVAL 1 DAY, LAST_DAY('2020-02-01'), DATE('x')
SELECT CAST('2020-1-5' AS DATE), CAST('abc' AS DATE), CAST('3.7' AS SIGNED), CAST(3.7 AS SIGNED), CAST('1e3' AS SIGNED), CAST('abc' AS UNSIGNED)
SELECT CAST('3.456' AS DECIMAL(10,2)), CAST(3.456 AS DECIMAL(10,1)), CAST('x' AS DECIMAL(4,2)), CONVERT('5', UNSIGNED INTEGER), CONVERT('5.5', DECIMAL(3,1)), CAST(5 AS CHAR), CAST(2.50 AS CHAR)
SELECT MONTHNAME(Joined), DAYNAME(Joined), QUARTER(Joined), DAYOFYEAR(Joined) FROM players WHERE ID = 1
SELECT Name FROM players WHERE Joined < '2020-01-01' AND Joined <> '' ORDER BY Joined DESC
SELECT Name FROM players WHERE MONTH(Joined) IN (1, 3) AND YEAR(Joined) BETWEEN 2019 AND 2021
SELECT Name FROM players WHERE STR_TO_DATE(Joined, '%Y-%m-%d') > '2020-01-01'
SELECT Name FROM players WHERE DATE(Joined) = '2019-03-05'
SELECT a.Name, b.Name FROM players a INNER JOIN players b ON a.ID + 1 = b.ID ORDER BY a.ID
SELECT a.Team, COUNT(b.ID) FROM players a LEFT JOIN players b ON a.Team = b.Team AND a.ID < b.ID GROUP BY a.Team ORDER BY a.Team
SELECT p.Name FROM players p, (SELECT MAX(`Height (cm)` + 0) AS m FROM players) AS t WHERE p.`Height (cm)` = t.m
SELECT p.Name FROM players p JOIN (SELECT Team, MIN(ID) AS first FROM players GROUP BY Team) t ON p.ID = t.first ORDER BY p.Name
WITH t AS (SELECT Team, SUM(Salary) AS s FROM players GROUP BY Team) SELECT Team, s FROM t WHERE s > (SELECT AVG(s) FROM t) ORDER BY s
WITH a AS (SELECT ID FROM players), b (x) AS (SELECT COUNT(*) FROM a) SELECT x, x / 4 FROM b
SELECT Name, SUM(ID) OVER (ORDER BY ID + 0) FROM players
SELECT Name, DENSE_RANK() OVER (ORDER BY Team) AS r FROM players ORDER BY r, Name
SELECT Name, LAG(Name) OVER (ORDER BY ID) FROM players
SELECT Name, COUNT(*) OVER (PARTITION BY Team) AS n FROM players ORDER BY ID
SELECT * FROM (SELECT Name, ROW_NUMBER() OVER (PARTITION BY Team ORDER BY ID) AS rn FROM players) t WHERE rn = 1 ORDER BY Name
SELECT Name FROM players WHERE (Team, ID) IN (SELECT Team, MAX(ID) FROM players GROUP BY Team) ORDER BY Name
SELECT Name FROM players WHERE ID NOT IN (SELECT ID FROM players WHERE ID > 2)
SELECT Name FROM players WHERE ID IN (SELECT COUNT(*) FROM players GROUP BY Team)
SELECT (SELECT COUNT(*) FROM players WHERE Team = 'Reds') - (SELECT COUNT(*) FROM players WHERE Team = 'Blues')
SELECT (SELECT Name FROM players WHERE ID = 1), (SELECT COUNT(*) FROM players) / 4
SELECT EXISTS (SELECT 1 FROM players WHERE ID = 9)
SELECT Name, (SELECT COUNT(*) FROM players q WHERE q.Team = p.Team) AS n FROM players p ORDER BY ID
SELECT 'x' AS label, Name FROM players WHERE ID = 1 UNION ALL SELECT 'y', Team FROM players WHERE ID = 2
(SELECT Name FROM players ORDER BY ID LIMIT 1) UNION ALL (SELECT Name FROM players ORDER BY ID DESC LIMIT 1)
SELECT COUNT(*) AS `number of players` FROM players
SELECT COUNT(*) 'number' FROM players
SELECT Name AS n FROM players ORDER BY n LIMIT 2
SELECT DISTINCT Team, Notes FROM players ORDER BY Team, Notes LIMIT 3
SELECT ALL Name FROM players LIMIT 1
SELECT SQL_CALC_FOUND_ROWS Name FROM players LIMIT 1
SELECT players.* FROM players WHERE ID = 1
SELECT p.*, 1 FROM players p WHERE ID = 1
SELECT *, Name FROM players WHERE ID = 1
SELECT 1 FROM DUAL
SELECT Name FROM players WHERE ID = 1 AND (Team = 'Reds' OR Team = 'Blues') XOR 0
SELECT Name FROM players WHERE Team <=> 'reds'
SELECT Name FROM players WHERE Team IS NOT TRUE
SELECT Name, MAX(Salary + 0) FROM players GROUP BY Name ORDER BY 2 DESC LIMIT 1
SELECT Team, Name FROM players GROUP BY Team, Name ORDER BY Name
SELECT UPPER(Team), COUNT(*) FROM players GROUP BY Team ORDER BY Team
SELECT CONCAT(Team, '!'), COUNT(*) FROM players GROUP BY Team ORDER BY Team
SELECT COUNT(*), Team FROM players GROUP BY 2 ORDER BY 2
SELECT Name FROM players WHERE Name = "Dée O'Neil"
SELECT Name Team FROM players LIMIT 1
INSERT INTO players (ID, Name, Team) VALUES (7, "Gus", 'Reds');
INSERT INTO `players` (`ID`, `Name`, `Height (cm)`) VALUES ('7', 'Gus', 180.5), (8, NULL, 0.10)
INSERT INTO players (ID) VALUES (1 + 1), (2 * 2.5), (CONCAT('a', 'b')), (LOWER('X')), (NULL), (-3), (+4), (0005), (1.0), (.5)
INSERT INTO players (ID) VALUES ((SELECT 3)), (IF(1, 'a', 'b'))
INSERT INTO players (ID, Name) SELECT MAX(ID) + 1, 'new' FROM players
INSERT INTO players (ID, Joined) VALUES (7, STR_TO_DATE('1/2/2020', '%d/%m/%Y')), (8, DATE_ADD('2020-01-31', INTERVAL 1 DAY)), (9, YEAR('2020-01-01'))
INSERT INTO players SET ID = '8', Name = UPPER('x')
UPDATE players SET Salary = Salary + 100
UPDATE players SET Salary = Salary * 1.1 WHERE Team = 'Greens'
UPDATE players SET Salary = REPLACE(Salary, ',', '') * 2
UPDATE players SET Salary = CAST(REPLACE(Salary, ',', '') AS SIGNED) * 2 WHERE ID < 4
UPDATE players SET Salary = ROUND(Salary / 3, 2)
UPDATE players SET Salary = ROUND(REPLACE(Salary, ',', '') * 1.05)
UPDATE players SET Salary = 12345.678, Notes = 0, `Win %` = 100
UPDATE players SET Salary = '5' + 5, Notes = 10 - 3, `Win %` = 2 * 1.5 WHERE ID = 1
UPDATE players SET Notes = CONCAT(`Height (cm)` + 1, ' cm')
UPDATE players SET Notes = LENGTH(Name), `Win %` = CHAR_LENGTH(Name)
UPDATE players SET Notes = IFNULL(NULLIF(Notes, ''), 'none')
UPDATE players SET Notes = CASE Team WHEN 'reds' THEN 'R' WHEN 'blues' THEN 'B' ELSE 'G' END
UPDATE players SET Notes = COALESCE(NULL, 1.50)
UPDATE players SET Notes = (SELECT 'x')
UPDATE players SET Name = TRIM(Name), Team = LOWER(Team) WHERE Name LIKE '%stone%'
UPDATE players SET Joined = DATE_FORMAT(Joined, '%d/%m/%Y') WHERE Joined <> ''
UPDATE players SET Joined = YEAR(Joined)
UPDATE players SET Notes = NULL
UPDATE players SET Notes = TRUE WHERE ID = 1
UPDATE players SET `Height (cm)` = `Height (cm)` / 2.54
UPDATE players SET `Height (cm)` = `Height (cm)` - 0.5 WHERE `Height (cm)` > 170.5
UPDATE players SET ID = -ID
UPDATE players SET ID = ID DIV 2
UPDATE players SET ID = ID % 2
UPDATE `players` SET `Team` = 'Reds' WHERE `Name` = "bob stone" AND `ID` = 2;
UPDATE players SET Team = 'X' WHERE Name IN ('Finn', 'ada lopez')
UPDATE players AS p SET Team = 'X' WHERE p.ID = 1
UPDATE players SET Team = 'X' AND Name = 'Y' WHERE ID = 1
DELETE FROM players WHERE ID IN (1, 2) AND Team <> 'Blues'
DELETE FROM players WHERE CAST(REPLACE(Salary, ',', '') AS SIGNED) > 1000
DELETE FROM players WHERE Joined < '2020-01-01'
DELETE FROM players WHERE YEAR(Joined) < 2020
DELETE FROM players WHERE `Height (cm)` = ''
DELETE FROM players WHERE Notes IS NULL OR Notes = ''
DELETE FROM players WHERE LENGTH(Name) < 5
DELETE FROM players WHERE Name LIKE '%e%' ORDER BY Name LIMIT 1
DELETE FROM players WHERE ID > 2 AND ID < 5;
DELETE p FROM players p LEFT JOIN players q ON p.Team = q.Team AND q.ID < p.ID WHERE q.ID IS NULL
DELETE a FROM players a, players b WHERE a.Team = b.Team AND a.ID > b.ID
DELETE FROM players USING players WHERE ID = 2
REPLACE INTO players VALUES ('1', 'Z', 'Z', '1', '1', '1', '1', '1')
ALTER TABLE players ADD Age TEXT ; UPDATE players SET Age = 'x' WHERE ID = 1 ; SELECT ID, Age FROM players LIMIT 2
DESCRIBE `players`;
SHOW FULL TABLES
SELECT COUNT(*) FROM players WHERE Team = 'Reds' -- the count
SELECT 1 -- a
