// A line does not end between the dashes of an option and its name.
for (const code of document.querySelectorAll(":not(pre) > code"))
    code.innerHTML = code.innerHTML.replace(/--[a-z][a-z-]*/g, "<span style='white-space: nowrap'>$&</span>");
