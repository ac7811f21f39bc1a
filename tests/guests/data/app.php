<?php
// Standard library, files and exit status of PHP.
echo count(json_decode('[1, 2, 3]')), ' ', md5(file_get_contents('/in/dot.svg')), "\n";
exit(3);
